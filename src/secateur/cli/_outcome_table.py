"""The figures of finished runs as tables."""

from __future__ import annotations

from rich.table import Table

from secateur.training.trainer import Outcome

Row = tuple[str, str, str, str]


def single_table(outcome: Outcome) -> Table:
    """Compare a finished network with the one the run began with.

    Args:
        outcome: Of the run.

    Returns:
        A table.
    """
    table = _table(("", "start", "end", "end / start"), outcome.threads)
    table.add_row("test accuracy", "", f"{outcome.test_accuracy:.2%}", "")
    for row in _size_rows(outcome):
        table.add_row(*row)
    table.add_row("training", "", f"{outcome.train_seconds:.1f} s", "")
    return table


def comparison_table(dense: Outcome, found: Outcome) -> Table:
    """Compare a dense training with one that searched for the structure.

    Args:
        dense: Outcome of the dense run.
        found: Outcome of the run that began with the same network.

    Returns:
        A table. Latencies of both networks were measured in turn, in one process.
    """
    table = _table(("", "dense", "found", "found / dense"), found.threads)
    points = 100 * (found.test_accuracy - dense.test_accuracy)
    accuracies = f"{dense.test_accuracy:.2%}", f"{found.test_accuracy:.2%}"
    table.add_row("test accuracy", *accuracies, f"{points:+.2f} points")
    for row in _size_rows(found):
        table.add_row(*row)
    seconds = dense.train_seconds, found.train_seconds
    table.add_row("training", *(f"{s:.1f} s" for s in seconds), _ratio(seconds[1], seconds[0]))
    return table


def _table(titles: tuple[str, ...], threads: int) -> Table:
    table = Table(
        caption="MACs of one image; latency: lower quartile, "
        f"{threads} thread{'s' * (threads > 1)}",
        caption_justify="left",
    )
    for title in titles:
        table.add_column(title, justify="right" if title else "left")
    return table


def _size_rows(outcome: Outcome) -> list[Row]:
    rows = [
        _row("parameters", outcome.params_before, outcome.params, "{:,.0f}"),
        _row("MACs", outcome.macs_before, outcome.macs, "{:,.0f}"),
    ]
    for size, latency in outcome.latency.items():
        before, after = 1000 * latency.before, 1000 * latency.after
        rows.append(_row(f"latency, batch {size}", before, after, "{:.2f} ms"))
    return rows


def _row(name: str, before: float, after: float, form: str) -> Row:
    return name, form.format(before), form.format(after), _ratio(after, before)


def _ratio(part: float, whole: float) -> str:
    return f"{part / whole:.2f}" if whole else "-"
