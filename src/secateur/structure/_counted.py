"""Sizes read from the axis of a tensor that carries units."""

from __future__ import annotations

from secateur.structure._compared import note_equal
from secateur.structure._label import Ids
from secateur.structure._measured import MeasuredInt
from secateur.structure._told import Stored


class Counted(MeasuredInt):
    """A size that remembers the ids it counts, and what it is held to be equal to."""

    ids: Ids
    __hash__ = MeasuredInt.__hash__

    def __eq__(self, other: object) -> bool:
        """Compare as a number; what is equal has to stay so."""
        is_equal = int.__eq__(self, other)
        if is_equal is True:
            note_equal(self.origins[0], self.ids, other)
        return is_equal

    def __ne__(self, other: object) -> bool:
        """Compare as a number; what is equal has to stay so."""
        is_equal = self.__eq__(other)
        return is_equal if is_equal is NotImplemented else not is_equal


def tells(number: object) -> bool:
    """Tell whether a number knows what it counts."""
    return isinstance(number, (Counted, Stored))
