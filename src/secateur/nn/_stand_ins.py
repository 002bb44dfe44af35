"""What stands in for modules of a layer that is gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Zero(nn.Module):
    """Returns zeros shaped like its first argument, whatever else it is given.

    Args:
        output: None to return a tensor. (position, length) to return a tuple of that length with
            the zeros at the position and None elsewhere, as the replaced module did.
    """

    def __init__(self, output: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.output = output

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Return zeros; shape, dtype and device of ``x``."""
        zeros = torch.zeros_like(x)
        if self.output is None:
            return zeros
        position, length = self.output
        return tuple(zeros if i == position else None for i in range(length))

    def extra_repr(self) -> str:
        """Show the form of the output."""
        return "" if self.output is None else f"output={self.output}"


class Shortcut(nn.Sequential):
    """A block that lost its residual branch: what is left of it, in order.

    Args:
        children: The block's own modules that remain, by name.
    """

    def __init__(self, children: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for name, module in children.items():
            self.add_module(name, module)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Call what remains on ``x``; further arguments belonged to the branch."""
        return super().forward(x)
