"""Which units go first: those with the lowest scores, until a model costs no more than it may.

Letters: U units over all families, F families, P units that may go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.errors import UsageError
from secateur.methods.scores import live_units
from secateur.structure import Decision, Live, Polynomial, Structure


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Budget:
    """What a model may cost.

    Attributes:
        name: What is counted, such as ``MACs``.
        cost: The count.
        most: What it may come to.
    """

    name: str
    cost: Polynomial
    most: float


def choose(
    structure: Structure, live: Live, score_U: Tensor, budgets: Sequence[Budget]
) -> Decision:
    """Take units by ascending score until every budget is kept, and not one more than needed.

    The best units of every family stay, as many as it needs, and so does what scores +inf. The last
    units taken may bring more than was asked for: from the most important one down, units are given
    back where the budgets are kept all the same, so that in the end none of them could be.

    Args:
        structure: Families and cost.
        live: What is left.
        score_U: Importance of every unit, ``[U]``.
        budgets: What the model may cost.

    Returns:
        Units to remove.

    Raises:
        UsageError: A budget cannot be kept by removing units, or a score is not a number.
    """
    unit_P = _removable(structure, live, score_U)
    family_P = _family_of(structure)[unit_P]
    num_families = len(structure.families)

    def kept(counts_F: Tensor) -> bool:
        return all(b.cost.value(counts_F, live.layers) <= b.most for b in budgets)

    def left(number: int) -> Tensor:
        return live.counts - torch.bincount(family_P[:number], minlength=num_families)

    low, high = 0, len(unit_P)
    _check_reach(structure, live, left(high), budgets)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if kept(left(middle)) else (middle + 1, high)
    counts_F, going = left(low), torch.ones(low, dtype=torch.bool)
    full: set[int] = set()  # a family of which one unit is too much: costs only know its count
    for number in range(low - 1, -1, -1):
        family = int(family_P[number])
        if family not in full:
            counts_F[family] += 1
            if kept(counts_F):
                going[number] = False
            else:
                counts_F[family] -= 1
                full.add(family)
    return _decision(structure, unit_P[:low][going])


def _removable(structure: Structure, live: Live, score_U: Tensor) -> Tensor:
    """Return the units that may go, least important first, ``[P]``."""
    if bool(score_U.isnan().any()):
        raise UsageError(
            f"{int(score_U.isnan().sum())} of {len(score_U)} scores are not a number. Check that "
            "weights, data and loss are finite, or use another score."
        )
    may_go_U = live_units(live) & (score_U < torch.inf)
    for family, live_U in enumerate(live.units):
        start = structure.offsets[family]
        own_U = score_U[start : structure.offsets[family + 1]].masked_fill(~live_U, -torch.inf)
        best = torch.argsort(own_U, descending=True, stable=True)
        may_go_U[start + best[: structure.families[family].fewest]] = False
    order_U = torch.argsort(score_U, stable=True)
    return order_U[may_go_U[order_U]]


def _family_of(structure: Structure) -> Tensor:
    sizes = torch.tensor([family.num_units for family in structure.families], dtype=torch.int64)
    return torch.repeat_interleave(torch.arange(len(sizes)), sizes)


def _decision(structure: Structure, unit: Tensor) -> Decision:
    family = _family_of(structure)[unit]
    return Decision(
        units={
            number: (unit[family == number] - structure.offsets[number]).sort().values
            for number in family.unique().tolist()
        }
    )


def _check_reach(
    structure: Structure, live: Live, fewest_F: Tensor, budgets: Sequence[Budget]
) -> None:
    fewest = [(b, b.cost.value(fewest_F, live.layers)) for b in budgets]
    missed = " and ".join(
        f"{b.most:,.0f} {b.name} (the fewest possible are {value:,.0f})"
        for b, value in fewest
        if value > b.most
    )
    if missed:
        raise UsageError(
            f"Removing units cannot bring the model down to {missed}: one unit of each of the "
            f"{len(structure.families)} families has to stay, as many experts as a router chooses, "
            "and what no family holds. "
            "Ask for less, or see `print(secateur.trace(model, example_inputs))` for what is fixed "
            "and why."
        )
