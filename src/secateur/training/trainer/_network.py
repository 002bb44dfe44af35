"""The network of a finished run, read back without the data that it was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from secateur.errors import StorageError, UsageError
from secateur.models import ModelShape
from secateur.storage import load
from secateur.training.trainer._event_log import EVENTS
from secateur.training.trainer._parts import build_network
from secateur.training.trainer._run_folder import is_finished, open_run


def load_network(run: Path) -> tuple[nn.Module, Tensor]:
    """Load the network that a run found.

    Args:
        run: Folder of a finished run.

    Returns:
        The network in evaluation mode on the CPU, and two images of zeros that it takes,
        ``[2, C, H, W]``.

    Raises:
        UsageError: The folder holds no run, or one that is not finished.
        StorageError: A file of the run is missing or damaged.
    """
    config = open_run(run)
    if not is_finished(run):
        raise UsageError(
            f"The run in {run} is not finished, so it has no network yet. "
            f"Finish it with: secateur train --resume {run}"
        )
    shape = _read_shape(run / EVENTS)
    model = load(lambda: build_network(config, shape), run)
    return model.eval(), torch.zeros(2, shape.in_channels, shape.image_size, shape.image_size)


def _read_shape(events: Path) -> ModelShape:
    try:
        with events.open(encoding="utf-8") as file:
            start = json.loads(file.readline())
        return ModelShape(**start["shape"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise StorageError(
            f"The first line of {events} does not say what the network takes "
            f"({type(error).__name__}: {error}). Restore the file from a copy."
        ) from error
