"""A model in evaluation mode for a moment: modes and buffers are put back."""

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
    buffers = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module.__dict__["_buffers"].items()
        if buffer is not None
    ]
    try:
        model.eval()
        yield
    finally:
        for module, name, buffer, content in buffers:
            module.__dict__["_buffers"][name] = buffer
            buffer.data.copy_(content)
        model.train()  # lets modules forget what they keep while they are in evaluation mode
        for module, training in modes:
            module.training = training
