"""The random generators that a run draws from, set, saved and put back."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def own_generators(device: torch.device, seed: int) -> Generator[None]:
    """Give a block torch's global generators at a seed; the caller's states come back after it.

    Args:
        device: Where the run computes.
        seed: Start of the generators.

    Yields:
        Nothing.
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def save_generators(device: torch.device) -> dict[str, Tensor]:
    """Return the states of torch's global generators.

    Args:
        device: Where the run computes.

    Returns:
        State of the CPU's generator and, on a GPU, of that one.
    """
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def load_generators_(device: torch.device, states: Mapping[str, Tensor]) -> None:
    """Put torch's global generators back.

    Args:
        device: Where the run computes.
        states: What `save_generators` returned.
    """
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
