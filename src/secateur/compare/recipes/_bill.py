"""The bill of a network: every multiply-accumulate and second that it took to get it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

What = Literal["pre-training", "training", "pruning", "fine-tuning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One part of a bill.

    Attributes:
        what: What it was spent on; a search during training is part of ``"training"``.
        macs: Multiply-accumulates: three forward passes an image that is trained on, and what was
            measured on the side.
        seconds: Wall-clock time.
    """

    what: What
    macs: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Bill:
    """What a network cost, part by part.

    A pre-trained network that several cells begin with is trained once and billed to each of them:
    whoever takes up one method alone pays all of it.

    Attributes:
        items: The parts, in the order in which they were spent.
    """

    items: tuple[Item, ...]

    @property
    def macs(self) -> float:
        """Multiply-accumulates of all parts."""
        return sum(item.macs for item in self.items)

    @property
    def seconds(self) -> float:
        """Seconds of all parts."""
        return sum(item.seconds for item in self.items)
