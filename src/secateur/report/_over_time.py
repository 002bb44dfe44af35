"""Plots of the whole run over time: accuracy, the size of the network, and the price."""

from __future__ import annotations

from secateur.report import _text
from secateur.report._figure import (
    DENSE,
    FOUND,
    INK,
    PRICE,
    REMOVED,
    Figure,
    Key,
    Panel,
    Spec,
    axis,
    caption,
    instant,
    layout,
    line,
    time_axis,
)
from secateur.report._history import Curve, History

TARGETS = {"target_macs": "MACs", "target_params": "parameters", "target_latency": "latency"}


def accuracy_and_macs(run: History, dense: History | None) -> Panel:
    """Draw accuracy on validation above the MACs left, on one time axis.

    Args:
        run: The run.
        dense: The dense run beside it.

    Returns:
        The section of the page.
    """
    title = "Accuracy and MACs over time"
    if not run.validation_accuracy and not run.macs_share:
        reason = "The run has recorded neither an accuracy nor a size yet, so there is no curve."
        return Panel(name="over-time", title=title, text=reason)
    text = "Accuracy on validation after each epoch, and below it the share of MACs left."
    if not run.validation_accuracy:
        text = "The share of MACs left. This run recorded no accuracy on validation."
    elif dense is None:
        text += " No dense run was given to compare with."
    traces, keys = _accuracy_traces(run, dense)
    more_traces, more_keys = _macs_traces(run)
    return Panel(
        name="over-time",
        title=title,
        text=text,
        figures=(
            _two_storeys(
                run, max(run.last_time, dense.last_time if dense else 0.0), traces, more_traces
            ),
        ),
        keys=(*keys, *more_keys),
    )


def _accuracy_traces(run: History, dense: History | None) -> tuple[list[Spec], list[Key]]:
    keys = [Key(label="found network", colour=FOUND, mark="line")]
    hover = {"hovertemplate": "%{y:.1%}"}
    traces: list[Spec] = []
    if dense and dense.validation_accuracy:
        keys.append(Key(label="dense network", colour=DENSE, mark="dash"))
        traces.append(
            line(dense.validation_accuracy, "dense", DENSE, line={"dash": "6px 4px"}) | hover
        )
    traces.append(line(run.validation_accuracy, "found", FOUND) | hover)
    return traces, keys


def _macs_traces(run: History) -> tuple[list[Spec], list[Key]]:
    lower = {"yaxis": "y2", "hovertemplate": "%{y:.1%}"}
    keys: list[Key] = []
    traces: list[Spec] = []
    if run.expected_macs_share:
        keys.append(Key(label="MACs expected over the gates", colour=FOUND, mark="dots"))
        dotted = {"dash": "1px 4px", "width": 2}
        traces.append(
            line(run.expected_macs_share, "expected", FOUND, line=dotted, opacity=0.8) | lower
        )
    traces.append(line(run.macs_share, "left", FOUND, line={"shape": "hv"}) | lower)
    departures = _departures(run)
    if departures:
        keys.append(Key(label="a layer went", colour=REMOVED, mark="diamond"))
        marker = {"color": REMOVED, "size": 9, "symbol": "diamond"}
        traces.append(
            line(departures, "", REMOVED)
            | lower
            | {
                "mode": "markers",
                "marker": marker,
                "text": [
                    _text.plain(_text.short(", ".join(removal.layers), 40))
                    for removal in run.removals
                    if removal.layers
                ],
                "hovertemplate": "%{text} went<extra></extra>",
            }
        )
    return traces, keys


def _departures(run: History) -> Curve:
    """Where on the curve of MACs a layer went."""
    went = [removal for removal in run.removals if removal.layers]
    whole = run.macs_before
    return Curve(
        times=tuple(removal.time for removal in went),
        values=tuple(
            removal.macs / whole if whole and removal.macs is not None else None for removal in went
        ),
    )


def _two_storeys(run: History, end: float, accuracy: list[Spec], macs: list[Spec]) -> Figure:
    """Lay accuracy out above MACs; MACs alone where no accuracy is known."""
    has_accuracy = bool(run.validation_accuracy)
    top = 0.4 if has_accuracy else 1.0
    shapes, notes = [], [caption("MACs left", y=top)]
    if has_accuracy:
        notes.append(caption("accuracy on validation"))
    if run.settled_at is not None:
        is_late = run.settled_at > end / 2
        shape, note = instant(run.settled_at, "settled", y=top, is_late=is_late)
        shapes, notes = [shape], [*notes, note]
    target = run.setting("target_macs")
    if target is not None:
        shapes.append(_level(target, "y2"))
        notes.append(_level_name("target", target, "y2"))
    return Figure(
        traces=tuple([*accuracy, *macs] if has_accuracy else macs),
        layout=layout(
            xaxis=time_axis(run.clock, end, anchor="y2"),
            yaxis=axis(
                domain=[0.54, 1] if has_accuracy else [0.99, 1],
                visible=has_accuracy,
                tickformat=".0%",
                nticks=6,
            ),
            yaxis2=axis(domain=[0, top], tickformat=".0%", range=[0, 1.06], nticks=6),
            shapes=shapes,
            annotations=notes,
        ),
        height=460 if has_accuracy else 260,
    )


def _level(value: float, y_axis: str) -> Spec:
    stroke = {"color": PRICE, "width": 1.5, "dash": "dash"}
    where = {"xref": "paper", "x0": 0, "x1": 1, "yref": y_axis, "y0": value, "y1": value}
    return {"type": "line", "line": stroke, **where}


def _level_name(text: str, value: float, y_axis: str) -> Spec:
    return {
        "text": text,
        "x": 0,
        "xref": "paper",
        "y": value,
        "yref": y_axis,
        "xanchor": "left",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"size": 12, "color": INK},
    }


def price(run: History, dense: History | None) -> Panel | None:
    """Draw the price over time where a budget steered it.

    Args:
        run: The run.
        dense: Not used.

    Returns:
        The section of the page; None where the user set the price.
    """
    del dense
    goals = [
        f"{_text.percent(goal, 0)} of the {what}"
        for key, what in TARGETS.items()
        if (goal := run.setting(key)) is not None
    ]
    if not goals:
        return None
    title, text = "Price over time", f"The budget was {_text.joined(goals)}; the price followed it."
    if not run.price:
        reason = f"{text} The run recorded no price yet, so there is no curve."
        return Panel(name="price", title=title, text=reason)
    notes = [caption("nats per 100 % of complexity")]
    figure = Figure(
        traces=(line(run.price, "price", PRICE) | {"hovertemplate": "%{y:.3g} nats"},),
        layout=layout(
            xaxis=time_axis(run.clock, run.last_time),
            yaxis=axis(rangemode="tozero", nticks=6),
            annotations=notes,
        ),
        height=280,
    )
    return Panel(name="price", title=title, text=text, figures=(figure,))
