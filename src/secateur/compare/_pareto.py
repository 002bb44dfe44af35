"""The Pareto front: what nothing else beats in both accuracy and cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secateur.compare._comparison import Row

TOLERANCE = 0.01
"""Costs that differ by no more of the full network's count as equal.

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
    return pareto_front([(cost(row), row.accuracy) for row in rows], tolerance=TOLERANCE)


def pareto_front(points: Sequence[tuple[float, float]], *, tolerance: float = 0.0) -> list[int]:
    """Find the points that no other point dominates.

    A point dominates another one that costs no less and is worth less, or that costs more and is
    worth no more.

    Args:
        points: Cost and worth of each.
        tolerance: Costs that differ by no more count as equal, >= 0.

    Returns:
        Numbers of the points on the front, cheapest first; of equal points all.

    Example:
        >>> pareto_front([(1.0, 0.9), (0.5, 0.8), (0.6, 0.7)])
        [1, 0]
    """

    def dominates(one: tuple[float, float], other: tuple[float, float]) -> bool:
        saved, gained = other[0] - one[0], one[1] - other[1]
        return (saved >= -tolerance and gained > 0) or (saved > tolerance and gained >= 0)

    front = [
        number
        for number, point in enumerate(points)
        if not any(dominates(other, point) for other in points)
    ]
    return sorted(front, key=lambda number: points[number])
