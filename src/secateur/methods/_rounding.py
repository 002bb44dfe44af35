"""From probabilities to a network: which unit every family keeps, and how a budget is met.

Letters: U units, F families, S structures (units, then layers).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

TOLERANCE = 0.005
_MAX_SKIPPED = 200


def keepers(rank_U: Tensor, alive_U: Tensor, family_U: Tensor, fewest_F: Tensor) -> Tensor:
    """Find the units each family never loses: the best that are left, the first of equals.

    Args:
        rank_U: Higher is better, finite.
        alive_U: False for units that are gone or about to go.
        family_U: Family of every unit, ascending.
        fewest_F: Number of units that each family needs, int64 ``[F]``.

    Returns:
        Bool ``[U]`` with at most that many True a family.
    """
    rank_U = torch.where(alive_U, rank_U, -torch.inf)
    order = torch.argsort(rank_U, descending=True, stable=True)
    order = order[torch.argsort(family_U[order], stable=True)]
    start_F = torch.searchsorted(family_U, torch.arange(len(fewest_F), device=family_U.device))
    place = torch.arange(len(order), device=order.device) - start_F[family_U]
    kept_U = torch.zeros_like(alive_U)
    kept_U[order] = place < fewest_F[family_U]
    return kept_U & alive_U


def worst_first(candidate_S: Tensor, level_S: Tensor, worth_S: Tensor) -> Tensor:
    """Sort candidates by level, equals by worth.

    Args:
        candidate_S: True for what may go.
        level_S: Levels of the dynamics.
        worth_S: Relative worth.

    Returns:
        Numbers of the candidates, int64, the first to go first.
    """
    by_worth = torch.argsort(worth_S, stable=True)
    order = by_worth[torch.argsort(level_S[by_worth], stable=True)]
    return order[candidate_S[order]]


def meet(order: Tensor, kept_S: Tensor, cost: Callable[[Tensor], float], target: float) -> Tensor:
    """Take structures away in order until the cost is at the target, never below it.

    A structure that would overshoot the target by more than the tolerance is passed over, and
    those behind it fill the rest, so that a large structure at the brink does not decide how far
    from the target the network ends.

    Args:
        order: Structures that may go, first to go first.
        kept_S: What is there, bool on the CPU.
        cost: Complexity of what is kept; never rises when something goes.
        target: Complexity to reach.

    Returns:
        What is kept then.
    """
    lowest, highest = target * (1 - TOLERANCE), target * (1 + TOLERANCE)
    passed: list[int] = []
    while len(order) > 0 and len(passed) < _MAX_SKIPPED and cost(kept_S) > highest:
        num = _longest(order, kept_S, cost, lowest)
        kept_S = _without(kept_S, order[:num])
        passed += order[num : num + 1].tolist()
        order = order[num + 1 :]
    return _nearest(passed, kept_S, cost, target)


def _longest(order: Tensor, kept_S: Tensor, cost: Callable[[Tensor], float], lowest: float) -> int:
    """Bisect for the longest start of the order that leaves the cost at or above a bound."""
    low, high = 0, len(order)
    while low < high:
        middle = (low + high + 1) // 2
        if cost(_without(kept_S, order[:middle])) >= lowest:
            low = middle
        else:
            high = middle - 1
    return low


def _nearest(
    passed: list[int], kept_S: Tensor, cost: Callable[[Tensor], float], target: float
) -> Tensor:
    """Take one more of those passed over if that ends nearer to the target."""
    best, distance = kept_S, abs(cost(kept_S) - target)
    for structure in passed:
        fewer_S = _without(kept_S, torch.tensor([structure]))
        if abs(cost(fewer_S) - target) < distance:
            best, distance = fewer_S, abs(cost(fewer_S) - target)
    return best


def _without(kept_S: Tensor, gone: Tensor) -> Tensor:
    fewer_S = kept_S.clone()
    fewer_S[gone] = False
    return fewer_S
