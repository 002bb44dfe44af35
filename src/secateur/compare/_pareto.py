"""The Pareto front: what nothing else beats in both accuracy and cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secateur.compare._comparison import Row

DIGITS = 2
"""Costs that agree to a hundredth of the full network's count as equal.

Methods that aim at the same budget miss it by some tenths of a percent, which decides nothing.
"""


def front_of(rows: Sequence[Row], cost: Callable[[Row], float]) -> list[int]:
    """Find the rows that no other row beats in both accuracy and a cost.

    Args:
        rows: Methods at their budgets.
        cost: Of a row, as a share of the full network's.

    Returns:
        Their numbers, cheapest first.
    """
    return pareto_front([(round(cost(row), DIGITS), row.accuracy) for row in rows])


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Find the points that no other point dominates.

    A point dominates another one that costs no less and is worth no more, and is not equal to it.

    Args:
        points: Cost and worth of each.

    Returns:
        Numbers of the points on the front, cheapest first; of equal points all.

    Example:
        >>> pareto_front([(1.0, 0.9), (0.5, 0.8), (0.6, 0.7)])
        [1, 0]
    """
    front = [
        number
        for number, (cost, worth) in enumerate(points)
        if not any(c <= cost and w >= worth and (c, w) != (cost, worth) for c, w in points)
    ]
    return sorted(front, key=lambda number: points[number])
