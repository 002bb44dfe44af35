"""`secateur report`: the page of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli._screen import screen
from secateur.report import write_report


def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run, finished or not.")],
    baseline: Annotated[
        Path | None, typer.Option(help="Folder of a dense run to compare with.")
    ] = None,
) -> None:
    """Write report.html into the folder of a run."""
    page = write_report(run, baseline=baseline)
    screen().print(f"Report: {page}", soft_wrap=True)
