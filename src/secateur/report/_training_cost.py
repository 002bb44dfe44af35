"""Plots of what the training cost, against the dense run."""

from __future__ import annotations

from secateur.report import _text
from secateur.report._figure import (
    DENSE,
    FOUND,
    Figure,
    Key,
    Panel,
    Spec,
    axis,
    caption,
    layout,
    line,
    time_axis,
)
from secateur.report._history import Curve, History


def training_cost(run: History, dense: History | None) -> Panel:
    """Draw MACs and seconds spent on training so far, for the run and the dense run.

    Args:
        run: The run.
        dense: The dense run beside it.

    Returns:
        The section of the page.
    """
    title = "Cost of training"
    end = max(run.last_time, dense.last_time if dense else 0.0)
    axis_of_time = time_axis(run.clock, end)
    macs = (run.training_macs, dense.training_macs if dense else None)
    seconds = (run.training_seconds, dense.training_seconds if dense else None)
    figures = (
        *_figure(*macs, axis_of_time, "MACs of training", ""),
        *_figure(*seconds, axis_of_time, "seconds", " s"),
    )
    if not figures:
        reason = "The run recorded no finished epoch, so the cost of training is not known."
        return Panel(name="training-cost", title=title, text=reason)
    keys = [Key(label="this run", colour=FOUND, mark="line")]
    if dense:
        keys.append(Key(label="dense run", colour=DENSE, mark="dash"))
    return Panel(
        name="training-cost",
        title=title,
        text=_comparison(run, dense),
        figures=figures,
        keys=tuple(keys),
        columns="two",
    )


def _comparison(run: History, dense: History | None) -> str:
    if dense is None:
        return "Spent from the start. No dense run was given to compare with."
    parts = []
    if run.total_training_macs and dense.total_training_macs:
        share = run.total_training_macs / dense.total_training_macs
        parts.append(f"{_text.percent(share, 0)} of the MACs")
    if run.total_seconds and dense.total_seconds:
        parts.append(f"{_text.percent(run.total_seconds / dense.total_seconds, 0)} of the time")
    if not parts:
        return "Spent from the start. The two runs have no total in common to compare."
    whole = "This run" if run.is_finished else "So far this run"
    return f"{whole} took {_text.joined(parts)} of the dense run."


def _figure(
    curve: Curve, dense: Curve | None, axis_of_time: Spec, what: str, unit: str
) -> tuple[Figure, ...]:
    # The first point is the origin: a curve needs one more to be one.
    if not any(curve.values[1:]):
        return ()
    hover = {"hovertemplate": f"%{{y:.3s}}{unit}"}
    traces: list[Spec] = []
    if dense and any(dense.values[1:]):
        traces.append(line(dense, "dense", DENSE, line={"dash": "6px 4px"}) | hover)
    traces.append(line(curve, "this run", FOUND) | hover)
    return (
        Figure(
            traces=tuple(traces),
            layout=layout(
                xaxis=axis_of_time,
                yaxis=axis(rangemode="tozero", nticks=5),
                annotations=[caption(what)],
            ),
            height=240,
        ),
    )
