"""What a trace keeps so that a smaller model can be held against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.structure._label import Ids, Label
from secateur.structure._tape import Grouping, Node

Places = Mapping[str, tuple[tuple[str, tuple[Label, ...]], ...]]
Scalars = Mapping[str, tuple[tuple[str, tuple[object, ...]], ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The wiring of the traced model.

    Attributes:
        ranges: (canonical tensor name, axis) to the ids along that axis.
        component: Component of every id.
        family: Family of each component, -1 where it is fixed.
        scalars: Module path to its operations' value-changing numbers, in order.
        places: Module path to its operations and the labels they met, in order, for each mode.
        groupings: How the groups of each convolution were read, by the name of its weight.
        modes: Modes that were traced: False for evaluation, True for training.
    """

    ranges: Mapping[tuple[str, int], Ids]
    component: NDArray[np.int64]
    family: NDArray[np.int64]
    scalars: Scalars
    places: tuple[Places, ...]
    groupings: Mapping[str, Grouping]
    modes: tuple[bool, ...]


def scalars_of(nodes: Iterable[Node]) -> Scalars:
    """Collect the numbers that change values, by module.

    Args:
        nodes: Operations in execution order.

    Returns:
        Module path to (operation, numbers) in order; operations without numbers are left out.
    """
    found: dict[str, list[tuple[str, tuple[object, ...]]]] = {}
    for node in nodes:
        if node.scalars:
            found.setdefault(node.module, []).append((node.operation, node.scalars))
    return {module: tuple(entries) for module, entries in found.items()}


def places_of(nodes: Iterable[Node]) -> Places:
    """Collect what every operation met, by module.

    Args:
        nodes: Operations in execution order.

    Returns:
        Module path to (operation, labels of its inputs) in order.
    """
    found: dict[str, list[tuple[str, tuple[Label, ...]]]] = {}
    for node in nodes:
        found.setdefault(node.module, []).append((node.operation, node.labels))
    return {module: tuple(entries) for module, entries in found.items()}
