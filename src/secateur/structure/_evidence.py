"""What a trace keeps so that a smaller model can be held against it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.structure._label import Ids
from secateur.structure._structure import Live, Member
from secateur.structure._tape import Grouping, Node


Scalars = Mapping[str, tuple[tuple[str, tuple[object, ...]], ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """The wiring of the traced model.

    Attributes:
        ranges: (canonical tensor name, axis) to the ids along that axis.
        component: Component of every id.
        family: Family of each component, -1 where it is fixed.
        scalars: Module path to its operations' value-changing numbers, in order.
        groupings: How the groups of each convolution were read, by the name of its weight.
        modes: Modes that were traced: False for evaluation, True for training.
    """

    ranges: Mapping[tuple[str, int], Ids]
    component: NDArray[np.int64]
    family: NDArray[np.int64]
    scalars: Scalars
    groupings: Mapping[str, Grouping]
    modes: tuple[bool, ...]

    def live_ids(
        self, members: Iterable[tuple[int, Member]], live: Live
    ) -> dict[tuple[str, int], Ids]:
        """Return the ids that are left on every axis.

        Args:
            members: Every member with the number of its family.
            live: Which units are left.

        Returns:
            Ids by canonical tensor name and axis.
        """
        kept = {key: np.ones(len(ids), dtype=bool) for key, ids in self.ranges.items()}
        for family, member in members:
            gone = ~live.units[family]
            if bool(gone.any()):
                kept[member.tensor, member.axis][member.index[gone].flatten().numpy()] = False
        return {key: ids[kept[key]] for key, ids in self.ranges.items()}


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
