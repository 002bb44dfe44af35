"""The folder of a run: made, named, and never overwritten."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

from secateur.errors import StorageError, UsageError
from secateur.training.trainer._config import Config
from secateur.training.trainer._config_file import read_config, write_config
from secateur.training.trainer._event_log import EVENTS

CONFIG = "config.toml"


def create_run(config: Config, out: Path | None = None) -> Path:
    """Make the folder of a new run and write its config.

    Args:
        config: Settings of the run.
        out: The folder; None means ``runs/NAME-TIMESTAMP``.

    Returns:
        The folder.

    Raises:
        UsageError: The folder holds a run already.
        StorageError: It cannot be made.
    """
    run = out or Path("runs") / f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if is_finished(run):
        raise UsageError(
            f"{run} holds a finished run, which is not overwritten. "
            "Give another folder with --out, or delete that one."
        )
    if (run / CONFIG).exists() or (run / EVENTS).exists():
        raise UsageError(
            f"{run} holds a run that has begun. Go on with it by --resume {run}, give another "
            "folder with --out, or delete that one."
        )
    try:
        run.mkdir(parents=True, exist_ok=True)
        (run / CONFIG).write_text(write_config(config), encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"The run folder {run} cannot be made ({error.strerror or error}). "
            "Choose a folder that can be written with --out."
        ) from error
    return run


def discard_unbegun(run: Path) -> None:
    """Delete what `create_run` made if nothing has happened in the run yet; others stay.

    Args:
        run: The folder; it goes if nothing else lies in it.
    """
    events = run / EVENTS
    with suppress(OSError):
        if not events.exists() or events.stat().st_size == 0:
            events.unlink(missing_ok=True)
            (run / CONFIG).unlink(missing_ok=True)
            run.rmdir()


def open_run(run: Path) -> Config:
    """Read the settings of a run.

    Args:
        run: Its folder.

    Returns:
        The settings.

    Raises:
        UsageError: The folder holds no run.
    """
    if not (run / CONFIG).exists():
        raise UsageError(
            f"{run} is not the folder of a run: it has no {CONFIG}. "
            "Give a folder that `secateur train` made."
        )
    return read_config(run / CONFIG)


def is_finished(run: Path) -> bool:
    """Say whether a run came to its end: whether its last event says so."""
    try:
        lines = (run / EVENTS).read_bytes().splitlines()
        last = json.loads(lines[-1])
    except (OSError, ValueError, IndexError):
        return False
    return isinstance(last, dict) and last.get("event") == "end"
