"""What every method was billed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from secateur.compare._comparison import DENSE, Row
from secateur.compare._drawing import BAR_MARGIN, BAR_PIXELS, row_name, upright
from secateur.report.kit import (
    FOUND,
    INK,
    REMOVED,
    SERIES,
    Figure,
    Key,
    Panel,
    Spec,
    axis,
    layout,
    plain,
)

PARTS = {
    "pre-training": SERIES[0],
    "training": FOUND,
    "pruning": REMOVED,
    "fine-tuning": SERIES[2],
}
"""Parts of a bill and their colours."""


def bills(rows: Sequence[Row]) -> list[Panel]:
    """Draw the bills part by part, in MACs and in seconds.

    Args:
        rows: The figures.

    Returns:
        The section of the page; none while no dense training has ended.
    """
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
    ticks: Spec = {
        "tickmode": "array",
        "tickvals": places,
        "ticktext": names,
        "ticklabelstandoff": 6,
    }
    return Figure(
        traces=tuple(traces),
        layout=layout(
            barmode="stack",
            hovermode="closest",
            margin={"l": 8, "r": 48, "t": 8, "b": 8},
            xaxis=axis(rangemode="tozero", nticks=6),
            yaxis=axis(showgrid=False, range=[len(rows) - 0.4, -0.6], **ticks),
            shapes=[upright(1)],
        ),
        height=BAR_PIXELS * len(rows) + BAR_MARGIN,
        title=title,
        note=f"1 is {DENSE}",
    )
