"""An axis that a reshape of the model's code split in several, as into heads and what is inside."""

from __future__ import annotations

from typing import NamedTuple

from secateur.structure._label import Label

Place = tuple[str, str, int]
"""Module path, source file and line of an operation."""


class Split(NamedTuple):
    """An axis that was split.

    Attributes:
        label: The label after it.
        axes: The axes that came of it, in order.
        place: Where the reshape is.
    """

    label: Label
    axes: tuple[int, ...]
    place: Place
