"""The Pareto front: what nothing else beats in both accuracy and cost."""

from __future__ import annotations

from collections.abc import Sequence


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
