"""Choices among units, such as a router's choice of experts, and the slices that they pick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.structure._label import Ids

if TYPE_CHECKING:
    from secateur.structure._tape import Node


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """A choice of some units of an axis by their values.

    Attributes:
        ids: Ids along the axis.
        count: How many positions are chosen at a time.
    """

    ids: Ids
    count: int


@dataclass(frozen=True, slots=True, eq=False)
class Pick:
    """Slices of a stored tensor that are picked by the numbers of chosen units.

    Attributes:
        nodes: The run it was met in.
        node: Index of the operation that picks.
        tensor: Canonical name of the tensor.
        ids: Ids along the axis.
    """

    nodes: list[Node]
    node: int
    tensor: str
    ids: Ids
