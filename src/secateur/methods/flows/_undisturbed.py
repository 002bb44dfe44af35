"""A model in evaluation mode for a moment: modes, buffers and random generators are put back."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from secateur.methods._evaluating import evaluating


@contextmanager
def undisturbed(model: nn.Module) -> Generator[None]:
    """Let a model be measured between two steps of its training as if it had not been.

    Args:
        model: The model.

    Yields:
        Nothing; inside the block the model is in evaluation mode.
    """
    where = device_of(model)
    devices = [] if where.type == "cpu" else [where]
    kind = "cuda" if where.type == "cpu" else where.type
    with evaluating(model), torch.random.fork_rng(devices=devices, device_type=kind):
        yield


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter.

    Args:
        model: The model.

    Returns:
        The device; the CPU where there is no parameter.
    """
    first: Tensor | None = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device
