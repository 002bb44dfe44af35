"""What stands in for a residual block whose branch is gone."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


class Shortcut(nn.Module):
    """Calls what is left of a block, one child after another, on the block's first argument.

    Without children it returns that argument. Other arguments are accepted and ignored, since
    the caller goes on passing whatever the block used to take.

    Args:
        children: Modules that remain, by the names they had in the block, in calling order.

    Example:
        >>> import torch
        >>> shortcut = Shortcut({"downsample": torch.nn.AvgPool1d(2)})
        >>> shortcut(torch.tensor([[1.0, 3.0]]), "a mask").tolist()
        [[2.0]]
    """

    def __init__(self, children: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor:
        """Return the first argument after every child.

        Args:
            *args: The block's positional arguments.
            **kwargs: The block's keyword arguments; the first one counts where there are no others.

        Returns:
            What the last child returns.
        """
        value = args[0] if args else next(iter(kwargs.values()))
        for child in self._modules.values():
            if child is not None:
                value = child(value)
        return value
