"""Plots of the search's own parameters: theta of the units, phi of the layers."""

from __future__ import annotations

from secateur.report import _text
from secateur.report._figure import (
    FOUND,
    FOUND_FAINT,
    FOUND_SOFT,
    REMOVED,
    Figure,
    Key,
    Panel,
    axis,
    band,
    caption,
    layout,
    line,
    time_axis,
)
from secateur.report._history import FamilyHistory, History

_UNIT_RANGE = [-0.04, 1.06]


def theta(run: History, dense: History | None) -> Panel:
    """Draw, per family, how the keep parameters of its units moved.

    Args:
        run: The run.
        dense: Not used.

    Returns:
        The section of the page.
    """
    del dense
    title = "Keep parameters of the units (theta)"
    drawn = [family for family in run.families if family.theta[2]]
    if not drawn:
        reason = "The run recorded no theta, so there are no trajectories to show."
        return Panel(name="theta", title=title, text=reason)
    text = (
        "A unit at 1 always takes part, a unit at 0 is about to go. The bands show the units of "
        "each family that are still there."
    )
    silent = len(run.families) - len(drawn)
    if silent:
        text += f" {silent:,} more {'family has' if silent == 1 else 'families have'} no record."
    return Panel(
        name="theta",
        title=title,
        text=text,
        figures=tuple(_bands(family, run) for family in drawn),
        keys=(
            Key(label="median", colour=FOUND, mark="line"),
            Key(label="middle half", colour=FOUND_SOFT, mark="block"),
            Key(label="least to greatest", colour=FOUND_FAINT, mark="block"),
        ),
        columns="many",
    )


def _bands(family: FamilyHistory, run: History) -> Figure:
    low, first, median, third, high = family.theta
    return Figure(
        title=_text.short(family.name, 34),
        note=f"{family.units_before:,} → {family.units_after:,}",
        traces=(
            *band(low, high, FOUND_FAINT),
            *band(first, third, FOUND_SOFT),
            line(median, "median", FOUND, line={"width": 1.8}) | {"hovertemplate": "%{y:.2f}"},
        ),
        layout=layout(
            xaxis=axis(showgrid=False, range=[0, run.last_time or 1], nticks=4),
            yaxis=axis(range=_UNIT_RANGE, tickvals=[0, 0.5, 1]),
            margin={"l": 4, "r": 8, "t": 4, "b": 4},
        ),
        height=118,
    )


def phi(run: History) -> Figure | None:
    """Draw how the keep parameter of every layer moved.

    Args:
        run: The run.

    Returns:
        The plot; None where nothing was recorded.
    """
    layers = [layer for layer in run.layers if layer.phi]
    if not layers:
        return None
    # The layers that went are drawn last, on top of the others.
    layers.sort(key=lambda layer: not layer.is_kept)
    traces = tuple(
        line(
            layer.phi,
            _text.plain(_text.short(layer.name)),
            FOUND if layer.is_kept else REMOVED,
            line={"width": 1.6 if layer.is_kept else 2.2},
            opacity=0.7 if layer.is_kept else 1.0,
        )
        | {"hovertemplate": "%{fullData.name}: %{y:.2f}<extra></extra>"}
        for layer in layers
    )
    return Figure(
        traces=traces,
        layout=layout(
            hovermode="closest",
            xaxis=time_axis(run.clock, run.last_time),
            yaxis=axis(range=_UNIT_RANGE, tickvals=[0, 0.5, 1]),
            annotations=[caption("keep parameter of each layer (phi)")],
        ),
        height=230,
    )
