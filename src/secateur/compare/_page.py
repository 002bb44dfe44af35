"""The page of a comparison: one self-contained HTML file in the look of a run's report."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.compare._comparison import DENSE, Comparison, Row
from secateur.compare._panels import panels
from secateur.compare._pareto import front_of
from secateur.report import kit

NARROWED = "narrowed"
LARGEST_MISS = 0.02
"""A network whose share of the MACs is further from its budget than this is pointed out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the table."""

    method: str
    budget: str
    seeds: str
    accuracy: str
    macs: str
    params: str
    speedups: tuple[str, ...]
    training_macs: str
    training_seconds: str
    on_front: bool


def render(comparison: Comparison, *, name: str, config: str) -> str:
    """Render the page.

    Args:
        comparison: The figures.
        name: Of the folder.
        config: The settings as text.

    Returns:
        The whole page.
    """
    settings, rows = comparison.config, comparison.rows
    subject = kit.subject(settings.model.name, settings.data.name)
    sizes = list(rows[0].speedup) if rows else []
    rows_with_budget = [row for row in rows if row.budget is not None]
    return kit.render_page(
        "compare.html",
        package="secateur.compare",
        panels=panels(comparison),
        name=name,
        heading=f"{subject}: {kit.plural(len(settings.all_methods), 'method')}",
        facts=_facts(comparison),
        summary=_summary(rows),
        notes=_notes(comparison),
        cards=(),
        lines=_lines(rows),
        sizes=sizes,
        config=config,
        tables=_tables(comparison),
        table_after="budgets" if rows_with_budget else "accuracy",
    )


def _facts(comparison: Comparison) -> list[str]:
    settings = comparison.config
    budgets = kit.joined([kit.percent(budget, 0) for budget in settings.budgets])
    return [
        f"{budgets} of the MACs",
        kit.plural(settings.training.epochs, "epoch"),
        kit.plural(len(settings.seeds), "seed"),
    ]


def _summary(rows: tuple[Row, ...]) -> str:
    """Say per budget which method came out best, and how far from the narrowed network."""
    sentences = []
    for budget in dict.fromkeys(row.budget for row in rows if row.budget is not None):
        here = [row for row in rows if row.budget == budget]
        best = max(here, key=lambda row: row.accuracy)
        sentence = (
            f"At {kit.percent(budget, 0)} of the MACs {best.method} reaches the highest accuracy, "
            f"{_accuracy(best)}"
        )
        narrowed = next((row for row in here if row.method == NARROWED), None)
        if narrowed is not None and narrowed is not best:
            sentence += f"; the network narrowed to as many reaches {_accuracy(narrowed)}"
        sentences.append(f"{sentence}.")
    dense = next((row for row in rows if row.method == DENSE), None)
    if dense is not None:
        sentences.append(f"The full network reaches {_accuracy(dense)}.")
    return " ".join(sentences) or "No cell is finished yet."


def _notes(comparison: Comparison) -> list[str]:
    notes = []
    finished, all_cells = len(comparison.finished), len(comparison.cells)
    if finished < all_cells:
        notes.append(
            f"{finished} of {kit.plural(all_cells, 'cell')} are finished; the rest is missing "
            "below. Start the comparison again with the same folder to go on."
        )
    if len(comparison.config.seeds) == 1:
        notes.append(
            "One seed says nothing about chance: differences of a point or less may be noise."
        )
    notes += _misses(comparison.rows)
    results = [result for _, result in comparison.finished]
    if len({str((result.machine, result.versions)) for result in results}) > 1:
        notes.append(
            "The cells come from more than one machine or version, so seconds and latencies are "
            "not comparable between all of them."
        )
    epochs = {cell.epochs for cell, _ in comparison.cells}
    if len(epochs) > 1:
        notes.append(
            f"The methods were given different numbers of epochs, {min(epochs)} to {max(epochs)}: "
            "part of the differences is due to that."
        )
    return notes


def _misses(rows: tuple[Row, ...]) -> list[str]:
    missed = [
        f"{row.method} at {kit.percent(row.macs)} instead of {kit.percent(row.budget, 0)}"
        for row in rows
        if row.budget is not None and abs(row.macs - row.budget) > LARGEST_MISS
    ]
    return [f"Mind the sizes: {kit.joined(missed)}."] if missed else []


def _lines(rows: tuple[Row, ...]) -> list[Line]:
    front = set(front_of(rows, lambda row: row.macs))
    return [_line(row, on_front=number in front) for number, row in enumerate(rows)]


def _line(row: Row, *, on_front: bool) -> Line:
    return Line(
        method=row.method,
        budget=kit.percent(row.budget, 0) if row.budget is not None else "",
        seeds=str(row.seeds),
        accuracy=_accuracy(row),
        macs=kit.percent(row.macs),
        params=kit.percent(row.params),
        speedups=tuple(f"{speedup:.2f}{kit.TIMES}" for speedup in row.speedup.values()),
        training_macs=_multiple(row.training_macs),
        training_seconds=_multiple(row.training_seconds),
        on_front=on_front,
    )


def _multiple(value: float | None) -> str:
    return kit.UNKNOWN if value is None else f"{value:.2f}"


def _accuracy(row: Row) -> str:
    mean = kit.percent(row.accuracy, 2)
    if row.spread is None:
        return mean
    return f"{100 * row.accuracy:.2f} ± {100 * row.spread:.2f}{kit.NBSP}%"


def _tables(comparison: Comparison) -> dict[str, dict[str, str]]:
    if not comparison.finished:
        return {}
    last = comparison.finished[-1][1]
    return {
        "Machine": {name: str(value) for name, value in last.machine.items()},
        "Versions": dict(last.versions),
    }
