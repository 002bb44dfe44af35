"""Numbers kept by modules that remember where, and the slices of an index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from secateur.structure._measured import Measured


class Stored(int):
    """A whole number that remembers the module and the slot it is kept in, and how often it is in.

    Attributes:
        source: Module path and slot.
        times: What the number kept there was multiplied by.
    """

    source: tuple[str, str]
    times: int = 1
    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        """Compare as a number, and let a size on the other side see what it is compared with."""
        return NotImplemented if isinstance(other, Measured) else int.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        """As `__eq__`."""
        return NotImplemented if isinstance(other, Measured) else int.__ne__(self, other)

    def __mul__(self, other: Any) -> int:
        """Multiply; a multiple by a plain number still says what it is a multiple of."""
        found = int.__mul__(self, other)
        if type(other) is not int or other <= 0:
            return found
        result = Stored(found)
        result.source, result.times = self.source, self.times * other
        return result

    __rmul__ = __mul__


def slices_in(index: Any, ndim: int) -> Iterator[tuple[int, int, slice]]:
    """List the slices of an index such as ``x[0, ..., :n]``.

    Args:
        index: What stands between the brackets.
        ndim: Number of axes of the tensor.

    Yields:
        The axis, where it is once whole numbers before it took theirs away and None added some,
        and the slice; none after a tensor.
    """
    entries = index if isinstance(index, tuple) else (index,)
    counted = [e for e in entries if e is not None and e is not Ellipsis]
    axis = place = 0
    for entry in entries:
        if isinstance(entry, Tensor):
            return
        if entry is None:
            place += 1
            continue
        if entry is Ellipsis:
            skipped = ndim - len(counted)
            axis, place = axis + skipped, place + skipped
            continue
        if isinstance(entry, slice):
            yield axis, place, entry
            place += 1
        axis += 1
