"""What a trace keeps so that a smaller model can be held against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.structure._label import Ids, Label
from secateur.structure._split import Place
from secateur.structure._tape import Grouping, Made, Node, Statistic

Places = Mapping[str, tuple[tuple[str, tuple[Label, ...]], ...]]
Positions = Mapping[str, frozenset[int]]
"""Module path to numbers of its operations, counted in order of execution."""
Scalars = Mapping[str, tuple[tuple[str, tuple[object, ...]], ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The wiring of the traced model.

    Attributes:
        ranges: (canonical tensor name, axis) to the ids along that axis.
        made: Ids on axes of tensors that the forward makes, by what gave them their size.
        component: Component of every id.
        family: Family of each component, -1 where it is fixed.
        scalars: Module path to its operations' value-changing numbers, in order.
        places: Module path to its operations and the labels they met, in order, for each mode.
        groupings: How the groups of each convolution were read, by the name of its weight.
        equal_parts: Whether a split at a module, file and line, or a slice, took equal parts.
        inside: Places of reshapes that make heads, where units lie inside heads, else None.
        modes: Modes that were traced: False for evaluation, True for training.
        vanished: For each mode and layer: what has no place to compare once the layer is gone.
        statistics: For each mode: means, variances and choices over units that the model's own code
            works out.
        loops: Paths of modules that go through units one by one.
    """

    ranges: Mapping[tuple[str, int], Ids]
    made: Mapping[Made, Ids]
    component: NDArray[np.int64]
    family: NDArray[np.int64]
    scalars: Scalars
    places: tuple[Places, ...]
    groupings: Mapping[str, Grouping]
    equal_parts: Mapping[Place, bool]
    inside: frozenset[Place] | None
    modes: tuple[bool, ...]
    vanished: tuple[tuple[Positions, ...], ...] = ()
    statistics: tuple[tuple[Statistic, ...], ...] = ()
    loops: frozenset[str] = frozenset()


def scalars_of(nodes: Iterable[Node]) -> Scalars:
    """Collect the numbers that change values, by module.

    Args:
        nodes: Operations in execution order.

    Returns:
        Module path to (operation, numbers) in order; operations without numbers are left out, and
        those that overwrite their operand go by the name of those that do not.
    """
    found: dict[str, list[tuple[str, tuple[object, ...]]]] = {}
    for node in nodes:
        if node.scalars:
            found.setdefault(node.module, []).append((node.operation.rstrip("_"), node.scalars))
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


def vanished_with(
    nodes: Iterable[Node], layers: Iterable[frozenset[int]], modes: Iterable[Places]
) -> tuple[tuple[Positions, ...], ...]:
    """Say which operations meet something else once a layer is gone: its own, and its addition.

    Args:
        nodes: Operations in evaluation mode, in execution order.
        layers: Nodes of each layer, the addition included.
        modes: Places of each mode that was traced, evaluation first.

    Returns:
        Positions for each mode and layer. Where a module runs other operations in training mode,
        all of them count.
    """
    position: dict[int, tuple[str, int]] = {}
    counts: dict[str, int] = {}
    for node in nodes:
        position[node.index] = node.module, counts.get(node.module, 0)
        counts[node.module] = counts.get(node.module, 0) + 1
    found = []
    for members in layers:
        own: dict[str, set[int]] = {}
        for index in members:
            module, number = position[index]
            own.setdefault(module, set()).add(number)
        found.append(own)
    places = list(modes)
    return tuple(
        tuple(
            {
                module: frozenset(numbers)
                if _operations(places[0], module) == _operations(mode, module)
                else frozenset(range(len(mode.get(module, ()))))
                for module, numbers in own.items()
            }
            for own in found
        )
        for mode in places
    )


def _operations(places: Places, module: str) -> list[str]:
    return [operation for operation, _ in places.get(module, ())]
