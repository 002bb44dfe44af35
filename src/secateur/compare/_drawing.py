"""What the plots of a comparison have in common."""

from __future__ import annotations

from secateur.compare._comparison import Row
from secateur.report.kit import INK, Spec, percent

BAR_PIXELS, BAR_MARGIN = 30, 56
"""Height of a line of a plot with one line a method, and of what surrounds them."""


def row_name(row: Row) -> str:
    """Name a method and its budget: ``taylor, 50 %``.

    Args:
        row: The method at one budget.

    Returns:
        The name.
    """
    return row.method if row.budget is None else f"{row.method}, {percent(row.budget, 0)}"


def upright(place: float) -> Spec:
    """Draw a dotted line from the bottom of a plot to its top.

    Args:
        place: Where on the horizontal axis.

    Returns:
        A plotly shape.
    """
    line: Spec = {"color": INK, "width": 1, "dash": "dot"}
    ends: Spec = {"x0": place, "x1": place, "y0": 0, "y1": 1, "yref": "paper"}
    return {"type": "line", "line": line} | ends
