"""What stands in for the end of a branch that is gone while its block goes on adding it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Zero(nn.Module):
    """Returns zeros shaped like its first argument; other arguments are accepted and ignored.

    The class attributes are what `nn.TransformerEncoderLayer` and `nn.TransformerEncoder` read of
    their attention before they decide about their fused kernel; they decide against it.

    Args:
        output: None to return a tensor, or (position, length) to return a tuple of that length
            with the zeros at that position and None elsewhere.

    Example:
        >>> import torch
        >>> Zero()(torch.ones(2)).tolist()
        [0.0, 0.0]
        >>> Zero((0, 2))(torch.ones(1), need_weights=False)
        (tensor([0.]), None)
    """

    in_proj_bias: None = None
    batch_first: bool = False

    def __init__(self, output: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.output = output

    def forward(self, *args: Tensor, **kwargs: Tensor) -> Tensor | tuple[Tensor | None, ...]:
        """Return zeros.

        Args:
            *args: The replaced module's positional arguments.
            **kwargs: Its keyword arguments; the first one counts where there are no others.

        Returns:
            Zeros shaped like the first argument, in a tuple where ``output`` says so.
        """
        zeros = torch.zeros_like(args[0] if args else next(iter(kwargs.values())))
        if self.output is None:
            return zeros
        position, length = self.output
        return tuple(zeros if place == position else None for place in range(length))

    def extra_repr(self) -> str:
        """Return the arguments as they are typed."""
        return "" if self.output is None else f"output={self.output}"
