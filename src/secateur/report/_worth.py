"""The plot of what the removed structures were worth, against their price."""

from __future__ import annotations

import math

from secateur.report import _text
from secateur.report._figure import (
    FOUND,
    PRICE,
    REMOVED,
    Figure,
    Key,
    Panel,
    Spec,
    axis,
    caption,
    layout,
    time_axis,
)
from secateur.report._history import History, Removal


def worth(run: History, dense: History | None) -> Panel:
    """Draw a mark per removal of a layer or of units of a family: its worth, where 1 is its price.

    Args:
        run: The run.
        dense: Not used.

    Returns:
        The section of the page.
    """
    del dense
    title = "Worth of what went"
    known = [(removal, name) for removal in run.removals for name in removal.worth]
    if not known:
        reason = "Nothing was removed, so there is no worth to compare with a price."
        if run.removals:
            reason = "The removals recorded no worth, so there is nothing to compare with a price."
        return Panel(name="worth", title=title, text=reason)
    units = [(removal, name) for removal, name in known if name not in removal.layers]
    whole = [(removal, name) for removal, name in known if name in removal.layers]
    keys = [Key(label="the price", colour=PRICE, mark="dash")]
    if units:
        keys.append(Key(label="units of a family (area: how many)", colour=FOUND, mark="point"))
    if whole:
        keys.append(Key(label="a layer", colour=REMOVED, mark="diamond"))
    return Panel(
        name="worth",
        title=title,
        text="How much of its price each structure earned when it went: at 1 it would lower the "
        "loss by exactly what it costs, below 1 it costs more than it gives.",
        figures=(_figure(run, units, whole),),
        keys=tuple(keys),
    )


def _figure(
    run: History, units: list[tuple[Removal, str]], whole: list[tuple[Removal, str]]
) -> Figure:
    values = [removal.worth[name] for removal, name in (*units, *whole)]
    span = max(1.0, *values) - min(0.0, *values)
    stroke = {"color": PRICE, "width": 1.5, "dash": "dash"}
    price = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": stroke}
    zero = price | {"y0": 0, "y1": 0, "line": {"color": "--ink-soft", "width": 1}}
    return Figure(
        traces=tuple(trace for trace in (_units(units), _whole(whole)) if trace["x"]),
        layout=layout(
            hovermode="closest",
            xaxis=time_axis(run.clock, run.last_time),
            yaxis=axis(
                range=[min(0.0, *values) - 0.06 * span, max(1.0, *values) + 0.08 * span],
                nticks=6,
            ),
            shapes=[zero, price],
            annotations=[caption("worth / price")],
        ),
        height=280,
    )


def _units(points: list[tuple[Removal, str]]) -> Spec:
    numbers = [removal.units.get(name, 1) for removal, name in points]
    marker = {
        "color": FOUND,
        "opacity": 0.55,
        "size": [min(30.0, 5 + 2.5 * math.sqrt(number)) for number in numbers],
        "line": {"width": 0},
    }
    names = [
        f"{_text.plural(number, 'unit')} of {_text.plain(_text.short(name, 40))}"
        for (_, name), number in zip(points, numbers, strict=True)
    ]
    return _points(points, names, marker)


def _whole(points: list[tuple[Removal, str]]) -> Spec:
    marker = {"color": REMOVED, "size": 11, "symbol": "diamond", "line": {"width": 0}}
    names = [f"layer {_text.plain(_text.short(name, 40))}" for _, name in points]
    return _points(points, names, marker)


def _points(points: list[tuple[Removal, str]], names: list[str], marker: Spec) -> Spec:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [removal.time for removal, _ in points],
        "y": [removal.worth[name] for removal, name in points],
        "text": names,
        "marker": marker,
        "hovertemplate": "%{text}<br>worth %{y:.2f} of the price<extra></extra>",
    }
