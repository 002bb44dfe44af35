"""A model that is run for a measurement: its buffers and modes are put back afterwards."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Put a model into evaluation mode; afterwards modes and buffers are as they were.

    Args:
        model: The model.

    Yields:
        Nothing.
    """
    modes = [(module, module.training) for module in model.modules()]
    with buffers_kept(model):
        try:
            model.eval()
            yield
        finally:
            model.train()  # lets modules forget what they keep while they are in evaluation mode
            for module, training in modes:
                module.training = training


@contextmanager
def buffers_kept(model: nn.Module) -> Generator[None]:
    """Let a forward pass write into buffers, such as the statistics of norms, without effect.

    Args:
        model: The model whose buffers are put back.

    Yields:
        Nothing.
    """
    kept = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        yield
    finally:
        for module, name, buffer, value in kept:
            buffer.data.copy_(value)
            module._buffers[name] = buffer
