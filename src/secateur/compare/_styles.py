"""Which colour and mark stand for a method on the page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from secateur.report.kit import DENSE, FOUND, INK, REMOVED, SERIES, Mark

SYMBOLS: dict[str, Mark] = {
    "circle": "point",
    "square": "block",
    "diamond": "diamond",
    "triangle-up": "triangle",
    "cross": "cross",
    "x": "x",
}
"""Plotly's name of a mark to that of the legend."""

_CONTROLS = {
    "dense": (DENSE, "square"),
    "narrowed": (INK, "diamond"),
    "random": (REMOVED, "x"),
    "complexity-aware": (FOUND, "circle"),
}


@dataclass(frozen=True, slots=True)
class Style:
    """How a method is drawn.

    Attributes:
        colour: Its role.
        symbol: As plotly calls them.
    """

    colour: str
    symbol: str

    @property
    def mark(self) -> Mark:
        """The symbol as the legend calls it."""
        return SYMBOLS[self.symbol]


def styles(methods: Iterable[str]) -> dict[str, Style]:
    """Give every method a colour and a mark; no two of thirty methods share both.

    Args:
        methods: Their names.

    Returns:
        Name to style.
    """
    found: dict[str, Style] = {}
    number = 0
    for method in dict.fromkeys(methods):
        if method in _CONTROLS:
            found[method] = Style(*_CONTROLS[method])
            continue
        # Five marks and six colours have no divisor in common: they meet again after thirty.
        symbol = [name for name in SYMBOLS if name != "x"][number % 5]
        found[method] = Style(SERIES[number % len(SERIES)], symbol)
        number += 1
    return found
