"""Methods at the same size, below each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from secateur.compare._comparison import DENSE, Row
from secateur.compare._drawing import BAR_MARGIN, BAR_PIXELS, row_name, upright
from secateur.compare._styles import Style
from secateur.report.kit import INK, Figure, Panel, Spec, axis, layout, percent, plain


def rankings(rows: Sequence[Row], found: Mapping[str, Style]) -> list[Panel]:
    """Draw the methods of every budget below each other, best first.

    Args:
        rows: The figures.
        found: Method to its style.

    Returns:
        The section of the page; none while no row has a budget.
    """
    dense = next((row for row in rows if row.method == DENSE), None)
    budgets = list(dict.fromkeys(row.budget for row in rows if row.budget is not None))
    figures = tuple(
        _ranking([row for row in rows if row.budget == budget], dense, found) for budget in budgets
    )
    if not figures:
        return []
    line = " The dotted line is the full network." if dense is not None else ""
    return [
        Panel(
            name="budgets",
            title="Methods at the same size",
            text="Mean accuracy, best first, with every seed as a faint mark. Judge a method by "
            f"its distance from narrowed and random.{line}",
            figures=figures,
            columns="one" if len(figures) == 1 else "two",
        )
    ]


def _ranking(rows: Sequence[Row], dense: Row | None, found: Mapping[str, Style]) -> Figure:
    ranked = sorted(rows, key=lambda row: -row.accuracy)
    traces: list[Spec] = []
    for place, row in enumerate(ranked):
        style = found[row.method]
        marker: Spec = {"color": style.colour, "symbol": style.symbol}
        common: Spec = {"type": "scatter", "name": plain(row_name(row))}
        seeds: Spec = {
            "mode": "markers",
            "x": [100 * accuracy for accuracy in row.accuracies],
            "y": [place] * row.seeds,
            "marker": marker | {"size": 7, "opacity": 0.4},
            "hovertemplate": "%{x:.2f} %<extra></extra>",
        }
        mean: Spec = {
            "mode": "markers",
            "x": [100 * row.accuracy],
            "y": [place],
            "marker": marker | {"size": 12},
            "hovertemplate": "mean: %{x:.2f} %<extra></extra>",
        }
        traces += [common | seeds] * (row.seeds > 1) + [common | mean]
    ticks: Spec = {
        "tickmode": "array",
        "tickvals": list(range(len(ranked))),
        "ticktext": [plain(row.method) for row in ranked],
        "ticklabelstandoff": 6,
    }
    shapes = [] if dense is None else [upright(100 * dense.accuracy)]
    title = {"text": "test accuracy, %", "standoff": 6, "font": {"size": 12}}
    return Figure(
        traces=tuple(traces),
        layout=layout(
            hovermode="closest",
            margin={"l": 8, "r": 64, "t": 8, "b": 8},
            xaxis=axis(nticks=7, title=title),
            yaxis=axis(range=[len(ranked) - 0.4, -0.6], **ticks),
            shapes=shapes,
            annotations=[_figure_beside(row, place) for place, row in enumerate(ranked)],
        ),
        height=BAR_PIXELS * len(ranked) + BAR_MARGIN + 16,
        title=f"{percent(ranked[0].budget, 0)} of the MACs",
    )


def _figure_beside(row: Row, place: int) -> Spec:
    """Write the mean to the right of the plot, where no mark can lie."""
    where: Spec = {"x": 1, "xref": "paper", "xanchor": "left", "xshift": 10, "y": place}
    font: Spec = {"size": 12.5, "color": INK}
    return {"text": f"{100 * row.accuracy:.2f}", "showarrow": False, "font": font} | where
