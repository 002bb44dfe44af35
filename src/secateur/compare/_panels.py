"""The plots of a comparison: accuracy against cost; the other panels are put beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secateur.compare._bill_panel import bills
from secateur.compare._comparison import Comparison, Row
from secateur.compare._drawing import row_name
from secateur.compare._pareto import front_of
from secateur.compare._ranking_panel import rankings
from secateur.compare._styles import Style, styles
from secateur.report.kit import (
    INK,
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


def panels(comparison: Comparison) -> list[Panel]:
    """Make the sections of the page that hold plots.

    Args:
        comparison: The figures.

    Returns:
        Accuracy against MACs, methods at the same MACs, accuracy against latency, and the bill.
    """
    rows = comparison.rows
    found = styles(comparison.config.all_methods)
    return [_accuracy(rows, found), *rankings(rows, found), *_latency(rows, found), *bills(rows)]


def _accuracy(rows: Sequence[Row], found: dict[str, Style]) -> Panel:
    figure = _plot(
        rows,
        found,
        lambda row: row.macs,
        "% of the full network's MACs",
        lambda row: f"{percent(row.macs)} of the MACs",
        height=430,
    )
    spread = any(row.spread is not None for row in rows)
    bars = " Bars are one standard deviation over the seeds." if spread else ""
    return Panel(
        name="accuracy",
        title="Accuracy against size",
        text="Accuracy on the test split after the last epoch. Up and to the left is better; the "
        "dotted line joins what nothing beats in both, sizes within 1 % counting as equal."
        f"{bars}",
        figures=(figure,),
        keys=_keys(rows, found),
    )


def _latency(rows: Sequence[Row], found: dict[str, Style]) -> list[Panel]:
    sizes = list(rows[0].speedup) if rows else []
    figures = tuple(
        _plot(
            rows,
            found,
            lambda row, size=size: 1 / row.speedup[size],  # type: ignore[misc]
            "% of the full network's time",
            lambda row, size=size: (  # type: ignore[misc]
                f"{times(row.speedup[size], 1)} as fast, {1000 * row.seconds[size]:.3g} ms"
            ),
            height=300,
            title=f"batch {size}",
        )
        for size in sizes
    )
    if not figures:
        return []
    return [
        Panel(
            name="speed",
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
    height: int,
    title: str = "",
) -> Figure:
    front = front_of(rows, cost)
    line: Spec = {
        "type": "scatter",
        "mode": "lines",
        "x": [100 * cost(rows[number]) for number in front],
        "y": [100 * rows[number].accuracy for number in front],
        "line": {"color": INK, "width": 1.3, "dash": "dot", "shape": "hv"},
        "hoverinfo": "skip",
    }
    points = [_points(row, found[row.method], 100 * cost(row), told(row)) for row in rows]
    x_title = {"text": what, "standoff": 6, "font": {"size": 12}}
    return Figure(
        traces=(line, *points),
        layout=layout(
            hovermode="closest",
            xaxis=axis(rangemode="tozero", nticks=9, title=x_title),
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
