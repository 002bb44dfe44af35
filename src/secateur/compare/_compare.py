"""Carries a comparison through, cell by cell; what is finished is never run again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from secateur.compare._cell import Cell, cells_of
from secateur.compare._comparison import Comparison
from secateur.compare._config import CompareConfig
from secateur.compare._result import Result, read_result, write_result
from secateur.compare._work_out import work_out
from secateur.compare._write import check_folder, write_comparison
from secateur.compare.recipes import Ground, OnRun
from secateur.errors import SecateurError
from secateur.training import trainer

CELLS = "cells"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a comparison stands.

    Attributes:
        finished: Cells whose figures are known.
        cells: Cells of the comparison.
        cell: The one that is being worked out.
        what: What is being done to it.
        run: How far that is.
    """

    finished: int
    cells: int
    cell: str
    what: str
    run: trainer.Progress


OnProgress = Callable[[Progress], None]


def compare(config: CompareConfig, out: Path, *, on_progress: OnProgress) -> Comparison:
    """Work out every cell of a comparison and write what came out.

    Started again with the same folder it goes on where it was stopped: cells whose settings are
    unchanged are read back, the others run. After every cell the tables and the page in the folder
    are those of all cells so far.

    Args:
        config: Its settings.
        out: Its folder.
        on_progress: Called at most five times a second, and whenever something else begins.

    Returns:
        All figures.

    Raises:
        UsageError: A setting does not fit the machine, the data or the network, or the folder
            holds something else.
        StorageError: Something cannot be read or written.
        InterruptedRunError: The user asked to stop; calling again goes on.
    """
    check_folder(out)
    cells = cells_of(config)
    results = _known(cells, out)
    comparison = _comparison(config, cells, results)
    write_comparison(comparison, out)
    ground = Ground(cells[0].base)
    for cell in cells:
        if cell.key in results:
            continue
        finished = sum(other.key in results for other in cells)
        on_run = _teller(on_progress, cell, finished, len(cells))
        try:
            results[cell.key] = work_out(cell, out, ground, on_run)
        except SecateurError as error:
            raise type(error)(
                f"The cell {cell.title!r} could not be worked out. {error} Cells that were "
                "finished before are kept."
            ) from error
        write_result(_path(out, cell), results[cell.key])
        comparison = _comparison(config, cells, results)
        write_comparison(comparison, out)
    return comparison


def _teller(on_progress: OnProgress, cell: Cell, finished: int, cells: int) -> OnRun:
    def on_run(what: str, run: trainer.Progress) -> None:
        on_progress(Progress(finished=finished, cells=cells, cell=cell.title, what=what, run=run))

    return on_run


def _known(cells: list[Cell], out: Path) -> dict[str, Result]:
    found = {cell.key: read_result(_path(out, cell)) for cell in cells}
    return {key: result for key, result in found.items() if result is not None}


def _path(out: Path, cell: Cell) -> Path:
    return out / CELLS / f"{cell.recipe.recipe}-{cell.key}.json"


def _comparison(config: CompareConfig, cells: list[Cell], results: dict[str, Result]) -> Comparison:
    return Comparison(config=config, cells=tuple((cell, results.get(cell.key)) for cell in cells))
