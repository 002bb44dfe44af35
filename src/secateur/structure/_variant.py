"""A traced model at another size: which ids its axes then hold, and what operations should meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.structure._evidence import Evidence, Positions
from secateur.structure._label import Ids, Label
from secateur.structure._structure import Family, Live, StoredSize
from secateur.structure._tape import CONSTANT_ID, Made


@dataclass(frozen=True, slots=True, eq=False)
class Variant:
    """What a model of another size is held against.

    Attributes:
        evidence: Wiring of the original, extended to the ids of added units.
        ids: Ids on every axis.
        made: Ids on axes of tensors that the forward makes.
        lone: Whether each family has one unit only, and False for what is fixed (at -1).
        whole: Whether all layers are there.
        same: Ids that count as equal where operations are compared map to one number.
        expected: What is to become of a label of the original.
        vanished: For each mode: operations that gone layers leave without a place to compare.
        stored: Module path to slot to the number a module has to keep at this size.
        last: The unit of each id where that is the last of a family that had several, else -1; or
            None.
    """

    evidence: Evidence
    ids: Mapping[tuple[str, int], Ids]
    made: Mapping[Made, Ids]
    lone: NDArray[np.bool_]
    whole: bool
    same: NDArray[np.int64]
    expected: Callable[[Label], Ids]
    vanished: tuple[Positions, ...] = field(default=(), kw_only=True)
    stored: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    last: NDArray[np.int64] | None = field(default=None, kw_only=True)


def smaller(evidence: Evidence, families: Sequence[Family], live: Live) -> Variant:
    """Describe the model without some units and layers.

    Which of several coupled ids stands for a position depends on the branches that are there, so
    once a layer is gone only units are compared, not the positions within one.

    Args:
        evidence: Wiring of the original.
        families: Its families.
        live: What is left.

    Returns:
        The variant.
    """
    kept = {key: np.ones(len(ids), dtype=bool) for key, ids in evidence.ranges.items()}
    for family, live_U in zip(families, live.units, strict=True):
        for member in family.members:
            gone = member.index[~live_U].flatten().numpy()
            kept[member.tensor, member.axis][gone] = False
    ids = {key: own[kept[key]] for key, own in evidence.ranges.items()}
    left = np.zeros(len(evidence.component), dtype=bool)
    left[CONSTANT_ID] = True
    for own in ids.values():
        left[own] = True
    is_left = np.zeros(len(left), dtype=bool)
    is_left[evidence.component[left]] = True
    made = {key: own[is_left[evidence.component[own]]] for key, own in evidence.made.items()}
    for own in made.values():
        left[own] = True

    def expected(label: Label) -> Ids:
        found = label.ids
        for axis in label.axes:
            others = tuple(a for a in range(found.ndim) if a != axis)
            found = found.compress(left[found].any(axis=others), axis=axis)
        return found

    whole = bool(live.layers.all())
    component = evidence.component
    # Which fixed position stands for others depends on the layers that are there; none of them
    # goes, so none can take the place of another.
    coupled = np.where(evidence.family[component] < 0, component[CONSTANT_ID], component)
    same = np.arange(len(component)) if whole else coupled
    lone = np.array([int(live_U.sum()) == 1 for live_U in live.units] + [False])
    came_down = lone & np.array([family.num_units > 1 for family in families] + [False])
    is_last = came_down[evidence.family[evidence.component]]
    last = np.where(is_last, evidence.component, -1) if came_down.any() else None
    vanished = _vanished(evidence, live)
    return Variant(evidence, ids, made, lone, whole, same, expected, vanished=vanished, last=last)


def _vanished(evidence: Evidence, live: Live) -> tuple[Positions, ...]:
    """Merge what the gone layers take along, for each mode."""
    result = []
    for layers in evidence.vanished or ((),) * len(evidence.modes):
        merged: dict[str, frozenset[int]] = {}
        for number in (~live.layers).nonzero().flatten().tolist():
            for module, positions in layers[number].items():
                merged[module] = merged.get(module, frozenset()) | positions
        result.append(merged)
    return tuple(result)


def larger(evidence: Evidence, families: Sequence[Family], stored: Sequence[StoredSize]) -> Variant:
    """Describe the model with one more unit in every family that has several, or two.

    A larger model shows a stale size as a smaller one does, and no family comes down to one unit,
    which would hide the order of its positions. The new unit is a twin of the middle one: its
    positions follow the original's, run by run, with ids of their own. A family that a number
    follows gets two: others that only fit while they are as large then show, too.

    Args:
        evidence: Wiring of the original.
        families: Its families.
        stored: Numbers in modules that follow the families.

    Returns:
        The variant.
    """
    count = len(evidence.component)
    twinned = np.zeros(count, dtype=bool)
    followed = {family for number in stored for family, _ in number.size.multiplicity}
    counts = []
    for number, family in enumerate(families):
        # With a twin of every unit, any axis of a joint label could be the one that grows.
        more = min(family.num_units - 1, 1 + (number in followed))
        counts.append(family.num_units + more)
        member = family.members[0]
        for k in range(more):
            position = int(member.index[(family.num_units // 2 + k) % family.num_units, 0])
            own = evidence.component[evidence.ranges[member.tensor, member.axis][position]]
            twinned |= evidence.component == own

    def doubled(found: Ids, axis: int, along: NDArray[np.bool_]) -> Ids:
        first = np.moveaxis(found, axis, 0).reshape(len(along), -1)[:, 0]
        owner = np.where(along, evidence.component[first % count], -1)
        source, is_twin = _with_twin_runs(owner, along)
        shape = [1] * found.ndim
        shape[axis] = -1
        return found.take(source, axis=axis) + count * is_twin.reshape(shape)

    def expected(label: Label) -> Ids:
        found = label.ids
        for axis in label.axes:
            others = tuple(a for a in range(found.ndim) if a != axis)
            along = (found < count) & twinned[found % count]
            found = doubled(found, axis, np.asarray(along.all(axis=others)))
        return found

    extended = replace(
        evidence,
        component=np.concatenate([evidence.component, evidence.component + count]),
        family=np.concatenate(
            [evidence.family, np.full(count - len(evidence.family), -1), evidence.family]
        ),
    )
    ids = {key: doubled(own, 0, twinned[own]) for key, own in evidence.ranges.items()}
    made = {key: doubled(own, 0, twinned[own]) for key, own in evidence.made.items()}
    lone = np.array([family.num_units == 1 for family in families] + [False])
    numbers = _numbers(stored, counts)
    return Variant(extended, ids, made, lone, True, np.arange(2 * count), expected, stored=numbers)


def narrowed(
    evidence: Evidence, families: Sequence[Family], stored: Sequence[StoredSize]
) -> Variant:
    """Describe the model with two units left of some families, three of the next, and so on.

    Where a slice ends may be worked out from a width with rounding, as in ``int(width / 4)``, or
    from the width of something else. One unit more everywhere need not show that.

    Args:
        evidence: Wiring of the original.
        families: Its families.
        stored: Numbers in modules that follow the families.

    Returns:
        The variant.
    """
    units = [torch.ones(family.num_units, dtype=torch.bool) for family in families]
    for number, (family, live_U) in enumerate(zip(families, units, strict=True)):
        live_U[max(1 + number % 3, family.fewest - 1) : -1] = False
    live = Live(units=tuple(units), layers=torch.ones(0, dtype=torch.bool))
    numbers = _numbers(stored, live.counts.tolist())
    return replace(smaller(evidence, families, live), stored=numbers)


def _numbers(stored: Sequence[StoredSize], counts: Sequence[int]) -> dict[str, dict[str, int]]:
    """Work out what modules have to keep at given counts of live units, one a family."""
    numbers: dict[str, dict[str, int]] = {}
    for number in stored:
        numbers.setdefault(number.module, {})[number.slot] = number.at(counts)
    return numbers


def _with_twin_runs(owner: Ids, along: NDArray[np.bool_]) -> tuple[Ids, Ids]:
    """Repeat every run of positions of one twinned unit; say where each position comes from."""
    edges = np.flatnonzero(np.diff(owner, prepend=np.nan, append=np.nan) != 0)
    source: list[Ids] = []
    is_twin: list[Ids] = []
    for start, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        run = np.arange(start, stop)
        times = 2 if along[start] else 1
        source += [run] * times
        is_twin += [np.full(len(run), k) for k in range(times)]
    return np.concatenate(source), np.concatenate(is_twin)
