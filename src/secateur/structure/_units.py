"""Units and families: which components may leave, grouped by where they live."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.structure._cost import Factor
from secateur.structure._label import Ids
from secateur.structure._solve import Solution
from secateur.structure._tape import Tape


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """Where every component stands among the families.

    Attributes:
        family: Family of each component, -1 where it is not free.
        unit: Number of each component within its family.
        sizes: Units a family.
    """

    family: NDArray[np.int64]
    unit: NDArray[np.int64]
    sizes: tuple[int, ...]


def number_units(tape: Tape, solution: Solution) -> Units:
    """Group free components into families, in the order in which the model makes them.

    Args:
        tape: The trace.
        solution: Its components.

    Returns:
        Family and unit number of every component.
    """
    component, free = solution.component, solution.free
    draw = np.random.default_rng(0)
    signature = np.zeros(len(free), dtype=np.uint64)
    arrays = [*tape.ranges.values(), *(ids for c in tape.charges for ids in c.factors)]
    arrays += [ids for ids in _counted(tape) if not _lies_within_one(component[ids])]
    marks = draw.integers(1, 2**63, size=len(arrays), dtype=np.uint64)
    lengths = [len(ids) for ids in arrays]
    np.add.at(signature, component[np.concatenate(arrays)], np.repeat(marks, lengths))
    first = np.empty(len(free), dtype=np.int64)
    first[component[::-1]] = np.arange(len(component))[::-1]
    chosen = np.flatnonzero(free)
    chosen = chosen[np.argsort(first[chosen], kind="stable")]
    _, starts, marked = np.unique(signature[chosen], return_index=True, return_inverse=True)
    number = np.argsort(np.argsort(starts))[marked]
    sizes = np.bincount(number, minlength=len(starts))
    family = np.full(len(free), -1, dtype=np.int64)
    unit = np.full(len(free), -1, dtype=np.int64)
    family[chosen] = number
    grouped = np.argsort(number, kind="stable")
    unit[chosen[grouped]] = np.arange(len(chosen)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return Units(family, unit, tuple(sizes.tolist()))


def _counted(tape: Tape) -> Iterator[Ids]:
    """Yield what numbers of modules count and what lies before cuts: no family is in part there."""
    yield from (use.ids for use in tape.uses if use.ids is not None)
    yield from tape.cuts


def _lies_within_one(component: NDArray[np.int64]) -> bool:
    """Tell whether an axis is the inner one of a joint label, within one unit."""
    return len(component) > 1 and bool((component == component[0]).all())


def axis_factor(units: Units, component: NDArray[np.int64]) -> Factor:
    """Express the live size of an axis in live units.

    Args:
        units: Families and unit numbers.
        component: Component of every position along the axis.

    Returns:
        The size; positions of families count with the mean number that a unit of them owns.
    """
    family = units.family[component]
    free = family[family >= 0]
    counts = np.bincount(free, minlength=len(units.sizes))
    found = np.flatnonzero(counts).tolist()
    return Factor(
        fixed=float(len(family) - len(free)),
        multiplicity=tuple(
            (number, float(counts[number] / units.sizes[number])) for number in found
        ),
    )


def even_axis_factor(units: Units, component: NDArray[np.int64]) -> Factor | None:
    """Express the live size of an axis in live units where that is exact.

    Args:
        units: Families and unit numbers.
        component: Component of every position along the axis.

    Returns:
        The size, or None where some unit of a family owns more of the axis than another. The inner
        axis of a joint label lies within one unit and is as long as ever.
    """
    if _lies_within_one(component):
        return Factor(fixed=float(len(component)))
    factor = axis_factor(units, component)
    for number, multiplicity in factor.multiplicity:
        own = component[units.family[component] == number]
        if (np.bincount(units.unit[own], minlength=units.sizes[number]) != multiplicity).any():
            return None
    return factor
