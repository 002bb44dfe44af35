"""The plots of a comparison: accuracy against cost, and what every method was billed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secateur.compare._comparison import DENSE, Comparison, Row
from secateur.compare._pareto import pareto_front
from secateur.compare._styles import Style, styles
from secateur.report.kit import (
    FAINT,
    INK,
    SERIES,
    Figure,
    Key,
    Panel,
    Spec,
    axis,
    caption,
    layout,
    percent,
    plain,
    times,
)

PARTS = {
    "pre-training": SERIES[0],
    "training": "--found",
    "pruning": "--removed",
    "fine-tuning": SERIES[2],
}
"""Parts of a bill and their colours."""

BAR_PIXELS, BAR_MARGIN = 30, 56


def panels(comparison: Comparison) -> list[Panel]:
    """Make the sections of the page that hold plots.

    Args:
        comparison: The figures.

    Returns:
        Accuracy against MACs, accuracy against latency, and the bill.
    """
    rows = comparison.rows
    found = styles(comparison.config.all_methods)
    return [_accuracy(rows, found), *_latency(rows, found), *_bill(rows)]


def row_name(row: Row) -> str:
    """Name a method and its budget: ``taylor, 50 %``.

    Args:
        row: The method at one budget.

    Returns:
        The name.
    """
    return row.method if row.budget is None else f"{row.method}, {percent(row.budget, 0)}"


def _accuracy(rows: Sequence[Row], found: dict[str, Style]) -> Panel:
    figure = _plot(
        rows,
        found,
        lambda row: 100 * row.macs,
        "% of the full network's MACs",
        lambda row: f"{percent(row.macs)} of the MACs",
        rangemode="tozero",
        height=430,
    )
    spread = any(row.spread is not None for row in rows)
    bars = " Bars are one standard deviation over the seeds." if spread else ""
    return Panel(
        name="accuracy",
        title="Accuracy against size",
        text="Accuracy on the test split after the last epoch. Up and to the left is better; the "
        f"line joins what no other network beats in both.{bars}",
        figures=(figure,),
        keys=_keys(rows, found),
    )


def _latency(rows: Sequence[Row], found: dict[str, Style]) -> list[Panel]:
    sizes = list(rows[0].speedup) if rows else []
    figures = tuple(
        _plot(
            rows,
            found,
            lambda row, size=size: 100 / row.speedup[size],  # type: ignore[misc]
            "% of the full network's time",
            lambda row, size=size: (  # type: ignore[misc]
                f"{times(row.speedup[size], 1)} as fast, {1000 * row.seconds[size]:.3g} ms"
            ),
            rangemode="tozero",
            height=300,
            title=f"batch {size}",
        )
        for size in sizes
    )
    if not figures:
        return []
    return [
        Panel(
            name="latency",
            title="Accuracy against measured latency",
            text="Time of a forward pass, each network in turn with the full one on the same "
            "machine. MACs are not time: small layers keep a device less busy.",
            figures=figures,
            columns="two",
        )
    ]


def _plot(
    rows: Sequence[Row],
    found: dict[str, Style],
    cost: Callable[[Row], float],
    what: str,
    told: Callable[[Row], str],
    *,
    rangemode: str,
    height: int,
    title: str = "",
) -> Figure:
    front = pareto_front([(cost(row), row.accuracy) for row in rows])
    line: Spec = {
        "type": "scatter",
        "mode": "lines",
        "x": [cost(rows[number]) for number in front],
        "y": [100 * rows[number].accuracy for number in front],
        "line": {"color": FAINT, "width": 5},
        "hoverinfo": "skip",
    }
    points = [_points(row, found[row.method], cost(row), told(row)) for row in rows]
    x_title = {"text": what, "standoff": 6, "font": {"size": 12}}
    return Figure(
        traces=(line, *points),
        layout=layout(
            hovermode="closest",
            xaxis=axis(rangemode=rangemode, nticks=9, ticksuffix="", title=x_title),
            yaxis=axis(nticks=7),
            annotations=[caption("test accuracy, %")],
        ),
        height=height,
        title=title,
    )


def _points(row: Row, style: Style, cost: float, told: str) -> Spec:
    spread = row.spread or 0.0
    accuracy = f"{100 * row.accuracy:.2f} %" + (f" ± {100 * spread:.2f}" if spread else "")
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [cost],
        "y": [100 * row.accuracy],
        "error_y": {
            "type": "data",
            "array": [100 * spread],
            "visible": spread > 0,
            "color": style.colour,
            "thickness": 1.4,
            "width": 4,
        },
        "marker": {
            "color": style.colour,
            "symbol": style.symbol,
            "size": 12,
            "line": {"color": "--card", "width": 1},
        },
        "name": plain(row_name(row)),
        "hovertemplate": f"<b>{plain(row_name(row))}</b><br>{accuracy}<br>{told}<extra></extra>",
    }


def _keys(rows: Sequence[Row], found: dict[str, Style]) -> tuple[Key, ...]:
    return tuple(
        Key(label=method, colour=found[method].colour, mark=found[method].mark)
        for method in dict.fromkeys(row.method for row in rows)
    )


def _bill(rows: Sequence[Row]) -> list[Panel]:
    billed = [row for row in rows if row.training_macs is not None]
    if not billed:
        return []
    return [
        Panel(
            name="bill",
            title="What it took to get there",
            text="All that was spent on a network, as a multiple of training the full one once: "
            "pre-training, search, pruning and fine-tuning. A pre-trained network that several "
            "methods begin with is billed to each.",
            figures=(
                _bars(billed, lambda row: row.macs_of, lambda row: row.training_macs, "MACs"),
                _bars(
                    billed, lambda row: row.seconds_of, lambda row: row.training_seconds, "seconds"
                ),
            ),
            keys=tuple(
                Key(label=part, colour=colour, mark="block")
                for part, colour in PARTS.items()
                if any(part in row.macs_of for row in billed)
            ),
            columns="two",
        )
    ]


def _bars(
    rows: Sequence[Row],
    parts: Callable[[Row], dict[str, float]],
    total: Callable[[Row], float | None],
    title: str,
) -> Figure:
    names = [plain(row_name(row)) for row in rows]
    places = list(range(len(rows)))
    used = [part for part in PARTS if any(part in parts(row) for row in rows)]
    traces: list[Spec] = [
        {
            "type": "bar",
            "orientation": "h",
            "y": places,
            "x": [parts(row).get(part, 0.0) for row in rows],
            "width": 0.62,
            "marker": {"color": PARTS[part]},
            "name": part,
            "customdata": names,
            "hovertemplate": f"%{{customdata}}<br>{part}: %{{x:.2f}}<extra></extra>",
        }
        for part in used
    ]
    totals = [total(row) or 0.0 for row in rows]
    traces.append(
        {
            "type": "scatter",
            "mode": "text",
            "x": totals,
            "y": places,
            "text": [f"  {value:.2f}" for value in totals],
            "textposition": "middle right",
            "textfont": {"color": INK},
            "cliponaxis": False,
            "hoverinfo": "skip",
        }
    )
    ticks: Spec = {"tickmode": "array", "tickvals": places, "ticktext": names}
    one: Spec = {"type": "line", "x0": 1, "x1": 1, "y0": 0, "y1": 1, "yref": "paper"}
    return Figure(
        traces=tuple(traces),
        layout=layout(
            barmode="stack",
            hovermode="closest",
            margin={"l": 8, "r": 48, "t": 8, "b": 8},
            xaxis=axis(rangemode="tozero", nticks=6),
            yaxis=axis(showgrid=False, range=[len(rows) - 0.4, -0.6], **ticks),
            shapes=[one | {"line": {"color": INK, "width": 1, "dash": "dot"}}],
        ),
        height=BAR_PIXELS * len(rows) + BAR_MARGIN,
        title=title,
        note=f"1 is {DENSE}",
    )
