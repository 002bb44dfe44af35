"""The figures of a comparison as a table."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from secateur.compare import Comparison, Row, front_of


def compare_table(comparison: Comparison) -> Table:
    """Show every method at every budget.

    Args:
        comparison: The figures.

    Returns:
        A table; an accuracy that nothing as small reaches is bold.
    """
    rows = comparison.rows
    sizes = list(rows[0].speedup) if rows else []
    seeds = sorted({row.seeds for row in rows})
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        caption=f"Seeds: {' or '.join(map(str, seeds))}. Test accuracy after the last epoch, ± one "
        "standard deviation. MACs and parameters: of the full network. Speed: times as fast as "
        "it, at batch sizes b. Bill: all training, as a multiple of the full network's.",
        caption_justify="left",
    )
    table.add_column("method", no_wrap=True)
    speeds = [f"speed\nb {size}" for size in sizes]
    for title in ["accuracy\n%", "MACs\n%", "params\n%", *speeds, "bill\nMACs", "bill\ntime"]:
        table.add_column(title, justify="right", no_wrap=True)
    front = front_of(rows, lambda row: row.macs)
    for number, row in enumerate(rows):
        table.add_row(*_cells(row, sizes, is_best=number in front))
    return table


def _cells(row: Row, sizes: list[int], *, is_best: bool) -> list[Text | str]:
    accuracy = f"{100 * row.accuracy:.2f}"
    if row.spread is not None:
        accuracy += f" ± {100 * row.spread:.2f}"
    return [
        Text(row.method if row.budget is None else f"{row.method}, {100 * row.budget:g} %"),
        Text(accuracy, style="bold" if is_best else ""),
        f"{100 * row.macs:.1f}",
        f"{100 * row.params:.1f}",
        *(f"{row.speedup[size]:.2f}" for size in sizes),
        "-" if row.training_macs is None else f"{row.training_macs:.2f}",
        "-" if row.training_seconds is None else f"{row.training_seconds:.2f}",
    ]
