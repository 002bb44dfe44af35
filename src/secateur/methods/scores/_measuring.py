"""A model in evaluation mode with every gradient on, for a moment."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.gates import pairing
from secateur.methods._evaluating import evaluating


@contextmanager
def measuring(model: nn.Module, *, batch_statistics: bool = False) -> Generator[None]:
    """Let gradients of a model be taken without leaving a trace in it.

    Inside the block the model is in evaluation mode, every floating-point parameter requires a
    gradient, and no parameter has one yet. Afterwards modes, gradients, ``requires_grad`` and
    buffers are as they were, bit for bit.

    Args:
        model: The model.
        batch_statistics: Whether batch norms take the statistics of each batch. Those they have
            collected mean nothing in a network that has not been trained.

    Yields:
        Nothing.
    """
    parameters = [(p, p.grad, p.requires_grad) for p in model.parameters()]
    with evaluating(model):
        try:
            for module in model.modules():
                if isinstance(module, _BatchNorm):
                    module.training = batch_statistics
            for parameter, _, _ in parameters:
                parameter.grad = None
                parameter.requires_grad_(parameter.is_floating_point())
            with torch.enable_grad():
                yield
        finally:
            for parameter, grad, required in parameters:
                parameter.requires_grad_(required)
                parameter.grad = grad


def take_gradients(model: nn.Module, loss: Tensor) -> None:
    """Set every parameter's gradient to that of one loss.

    Args:
        model: The model, inside `measuring`.
        loss: A scalar of it.
    """
    for parameter in model.parameters():
        parameter.grad = None
    if loss.requires_grad:
        loss.backward()


def sensitivities(model: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Multiply parameters by their gradients.

    Args:
        model: The model, inside `measuring`.
        names: Parameters that are wanted.

    Returns:
        Name to |w dL/dw|; 0 where there is no gradient.
    """
    parameters = dict(model.named_parameters())
    return {name: _sensitivity(parameters[name]) for name in names}


def _sensitivity(parameter: nn.Parameter) -> Tensor:
    weight = parameter.detach()
    if parameter.grad is None:
        return torch.zeros_like(weight.real)
    return pairing(weight, parameter.grad).abs()
