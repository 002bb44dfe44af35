"""`secateur compare`: several methods on one model, data set and budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli._compare_progress import CompareProgress
from secateur.cli._compare_table import compare_table
from secateur.cli._options import INTERRUPTED, Settings
from secateur.cli._screen import error_screen, screen
from secateur.compare import compare as carry_out
from secateur.compare import read_compare_config


def compare(
    config: Annotated[
        Path, typer.Argument(help="Config file, such as configs/compare/digits.toml.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the comparison.", show_default="runs/NAME"),
    ] = None,
    settings: Settings = None,
) -> None:
    """Train several methods on one job and compare them. Typed again, it goes on where it was."""
    found = read_compare_config(config, settings or [])
    folder = out or Path("runs") / found.name
    with CompareProgress(error_screen()) as progress:
        try:
            comparison = carry_out(found, folder, on_progress=progress.show)
        except KeyboardInterrupt as stop:  # of a training that was saved, or between two
            progress.say("Stopped. Go on with the same command.")
            raise typer.Exit(INTERRUPTED) from stop
    screen().print(compare_table(comparison))
    screen().print(f"Page: {folder / 'comparison.html'}", soft_wrap=True)
