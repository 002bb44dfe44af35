"""A number kept by a module that was used as a size."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.structure._label import Ids


@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """A number kept by a module that was used as a size.

    Attributes:
        source: Module path and slot.
        ids: Ids on the axis (or the first part of an axis) it is the size of; None where the axis
            carries none.
        file: Source file of the last operation before the use was over.
        line: Line in it.
        times: What the number was multiplied by.
    """

    source: tuple[str, str]
    ids: Ids | None
    file: str
    line: int
    times: int = 1
