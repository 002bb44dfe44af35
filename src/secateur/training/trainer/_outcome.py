"""What a finished run came to: as `train` returns it, or read back from the run's events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secateur.errors import StorageError, UsageError
from secateur.training.trainer._event_log import EVENTS
from secateur.training.trainer._latency import Latency
from secateur.training.trainer._run_folder import is_finished


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a finished run came to.

    Attributes:
        run: Its folder.
        test_accuracy: In [0, 1], on images that neither training nor decisions saw.
        test_loss: In nats.
        macs_before: Multiply-accumulates of one image at the start.
        macs: Of the finished network.
        params_before: Parameters at the start.
        params: Of the finished network.
        latency: Batch size to measured seconds of the starting and the finished network.
        threads: CPU threads with which the latency was measured.
        train_seconds: Of training and validation, and of tracing the network for a search.
        training_macs: Multiply-accumulates spent on training, losses measured on the side included.
        report: The page that shows it all.
    """

    run: Path
    test_accuracy: float
    test_loss: float
    macs_before: float
    macs: float
    params_before: int
    params: int
    latency: Mapping[int, Latency]
    threads: int
    train_seconds: float
    training_macs: float
    report: Path


def read_outcome(run: Path) -> Outcome:
    """Read what a finished run came to.

    Args:
        run: Its folder.

    Returns:
        The same figures that `train` returned when the run ended.

    Raises:
        UsageError: The run is not finished.
        StorageError: Its events are damaged.
    """
    if not is_finished(run):
        raise UsageError(
            f"The run in {run} is not finished, so it has no figures yet. "
            f"Finish it with: secateur train --resume {run}"
        )
    path = run / EVENTS
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        start, end = json.loads(lines[0]), json.loads(lines[-1])
        return Outcome(
            run=run,
            macs_before=start["macs"],
            params_before=start["params"],
            latency={int(size): Latency(**pair) for size, pair in end["latency"].items()},
            report=run / "report.html",
            **{name: end[name] for name in _AT_THE_END},
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(
            f"The first and the last line of {path} do not hold the figures of a finished run "
            f"({type(error).__name__}: {error}). Restore the file from a copy, or train again."
        ) from error


_AT_THE_END = (
    "test_accuracy",
    "test_loss",
    "macs",
    "params",
    "threads",
    "train_seconds",
    "training_macs",
)
