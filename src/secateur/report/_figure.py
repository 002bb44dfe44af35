"""What a plot of the report is made of: plotly traces, a shared look, and colours by role.

Colours are names of CSS properties (``--found``); the page's script puts in the values of the
light or dark scheme, so that a figure is made once and fits both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from secateur.report._history import Curve

Spec = dict[str, object]
"""A part of a plotly figure, ready for JSON."""

FOUND, DENSE, REMOVED, PRICE = "--found", "--dense", "--removed", "--price"
FOUND_SOFT, FOUND_FAINT, EMPTY, INK, FAINT = (
    "--found-soft",
    "--found-faint",
    "--empty",
    "--ink-soft",
    "--line",
)

SERIES = ("--series-a", "--series-b", "--series-c", "--series-d", "--series-e", "--series-f")
"""Colours of things that are told apart and stand for nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One plot.

    Attributes:
        traces: Plotly traces.
        layout: Plotly layout.
        height: In CSS pixels.
        title: Shown above the plot where several stand side by side.
        note: Shown beside the title.
    """

    traces: tuple[Spec, ...]
    layout: Spec
    height: int
    title: str = ""
    note: str = ""


Mark = Literal[
    "line", "dash", "dots", "block", "frame", "point", "diamond", "triangle", "cross", "x"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One entry of a legend.

    Attributes:
        label: What is meant.
        colour: Its role.
        mark: How it is drawn.
    """

    label: str
    colour: str
    mark: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One section of the page.

    Attributes:
        name: For links within the page.
        title: Its heading.
        text: One or two sentences on how to read it; where nothing could be drawn, the reason.
        figures: Its plots.
        keys: Its legend.
        columns: How the plots stand: one below the other, in pairs, or as many as fit.
    """

    name: str
    title: str
    text: str
    figures: tuple[Figure, ...] = ()
    keys: tuple[Key, ...] = ()
    columns: Literal["one", "two", "many"] = "one"


def figures_of(panels: Iterable[Panel]) -> dict[str, Spec]:
    """Collect the figures of a page under the names by which its script finds them.

    Args:
        panels: The sections of the page.

    Returns:
        ``NAME-NUMBER`` to traces and layout.
    """
    return {
        f"{panel.name}-{number}": {"data": figure.traces, "layout": figure.layout}
        for panel in panels
        for number, figure in enumerate(panel.figures)
    }


def line(curve: Curve, name: str, colour: str, **more: object) -> Spec:
    """Make a trace that joins the points of a curve.

    Args:
        curve: What to draw.
        name: Shown on hovering.
        colour: Its role.
        more: Further attributes of the trace; those of ``line`` are merged.

    Returns:
        A plotly trace.
    """
    style = {"color": colour, "width": 2.2}
    given = more.pop("line", {})
    assert isinstance(given, dict)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(curve.times),
        "y": list(curve.values),
        "name": name,
        "line": style | given,
        "hovertemplate": "%{y}",
        **more,
    }


def axis(**more: object) -> Spec:
    """Make an axis in the look of the report.

    Args:
        more: Further attributes of the axis.

    Returns:
        A plotly axis.
    """
    return {
        "showgrid": True,
        "gridcolor": FAINT,
        "zeroline": False,
        "showline": False,
        "ticks": "",
        "automargin": True,
        "fixedrange": True,
        **more,
    }


def time_axis(clock: str, end: float, **more: object) -> Spec:
    """Make the axis of epochs or steps, without grid lines.

    Args:
        clock: Unit of the times.
        end: Where the axis ends.
        more: Further attributes of the axis.

    Returns:
        A plotly axis.
    """
    title = {"text": clock, "standoff": 6, "font": {"size": 12}}
    # A run that has not taken a step yet still gets an axis of some length.
    return axis(showgrid=False, range=[0, end or 1], nticks=9, title=title, **more)


def layout(**more: object) -> Spec:
    """Make a layout in the look of the report: no title, no legend, thin margins.

    Args:
        more: Further attributes of the layout.

    Returns:
        A plotly layout.
    """
    return {
        "margin": {"l": 8, "r": 14, "t": 24, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hovermode": "x unified",
        "dragmode": False,
        **more,
    }


def caption(text: str, y: float = 1.0) -> Spec:
    """Make a caption at the upper left of a plot, which reads better than a turned axis title.

    Args:
        text: What the vertical axis shows.
        y: Height of the plot's upper edge, as a share of the figure.

    Returns:
        A plotly annotation.
    """
    return {
        "text": text,
        "x": 0,
        "y": y,
        "xref": "paper",
        "yref": "paper",
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": 4,
        "showarrow": False,
        "font": {"size": 12, "color": INK},
    }


def instant(time: float, text: str, *, y: float, is_late: bool) -> tuple[Spec, Spec]:
    """Mark a moment by a vertical line with a word beside it.

    Args:
        time: Where on the time axis.
        text: The word.
        y: Height of the word, as a share of the figure.
        is_late: True to put the word before the line, where there is room for it.

    Returns:
        A plotly shape and an annotation.
    """
    where: Spec = {"xref": "x", "yref": "paper"}
    stroke = {"color": INK, "width": 1, "dash": "dot"}
    shape: Spec = {"type": "line", "x0": time, "x1": time, "y0": 0, "y1": 1, "line": stroke}
    side: Spec = {"x": time, "xanchor": "right" if is_late else "left"}
    side["xshift"] = -4 if is_late else 4
    return shape | where, caption(text, y) | where | side


def band(low: Curve, high: Curve, colour: str) -> Sequence[Spec]:
    """Make the traces that fill the space between two curves.

    Args:
        low: The lower edge.
        high: The upper edge, at the same times.
        colour: Role of the filling.

    Returns:
        Two plotly traces without hover labels.
    """
    edge: Spec = {"width": 0}
    silent: Spec = {"hoverinfo": "skip", "hovertemplate": None}
    return (
        line(low, "", colour, line=edge) | silent,
        line(high, "", colour, line=edge) | silent | {"fill": "tonexty", "fillcolor": colour},
    )
