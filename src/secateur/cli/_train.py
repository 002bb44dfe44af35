"""`secateur train`: a run from a config file, or the rest of a run that was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from secateur.cli._options import Settings
from secateur.cli._outcome_table import single_table
from secateur.cli._run_progress import RunProgress
from secateur.cli._screen import error_screen, screen
from secateur.errors import SecateurError, UsageError
from secateur.training import trainer


def train(
    config: Annotated[
        Path | None, typer.Argument(help="Config file, such as configs/digits.toml.")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Folder of a run that was stopped, to go on with it.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run.", show_default="runs/NAME-TIMESTAMP"),
    ] = None,
    settings: Settings = None,
) -> None:
    """Train a network from a config. With a section [search] it finds its own structure."""
    run = _run_folder(config, resume, out, settings or [])
    try:
        with RunProgress(error_screen()) as progress:
            outcome = trainer.train(run, on_progress=progress.run(run.name))
    except SecateurError:
        if resume is None:  # a mistake in the config leaves no folder that would be in the way
            trainer.discard_unbegun(run)
        raise
    screen().print(single_table(outcome))
    screen().print(f"Report: {outcome.report}", soft_wrap=True)


def _run_folder(
    config: Path | None, resume: Path | None, out: Path | None, settings: list[str]
) -> Path:
    if resume is None and config is None:
        raise UsageError(
            "There is nothing to train: neither a config nor a run to resume was given. "
            "Type secateur train configs/digits.toml, or secateur train --resume RUN."
        )
    if resume is None:
        assert config is not None
        return trainer.create_run(trainer.read_config(config, settings), out)
    if config is not None or out is not None or settings:
        raise UsageError(
            f"--resume {resume} was given together with a config, --out or --set, but a run is "
            f"resumed as it was begun. Type secateur train --resume {resume} alone."
        )
    return resume
