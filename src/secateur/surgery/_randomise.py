"""Giving a copy of a model values under which a wrong removal shows.

Freshly built models hide mistakes: zeros where a branch or head starts, ones and zeros in norms,
layer scales of 1e-6.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy


def randomise_(model: nn.Module, generator: torch.Generator) -> None:
    """Replace constant parameters and the running statistics of norms by random values.

    Args:
        model: The model.
        generator: Source of the values, on the CPU.
    """
    for parameter in model.parameters():
        if is_lazy(parameter):
            continue  # which the trace will refuse
        if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
            _fill_(parameter, generator)
    for module in model.modules():
        if isinstance(module, _NormBase) and module.running_mean is not None:
            assert module.running_var is not None
            _normal_(module.running_mean, 0.2, generator)
            _uniform_(module.running_var, generator)


def _fill_(parameter: nn.Parameter, generator: torch.Generator) -> None:
    """Zero weights become small normal ones, constant factors become factors around 1."""
    if bool((parameter == 0).all()):
        inputs = max(parameter.numel() // parameter.shape[0], 1)
        _normal_(parameter.data, 0.2 if parameter.dim() == 1 else inputs**-0.5, generator)
    else:
        _uniform_(parameter.data, generator)


def _normal_(tensor: Tensor, std: float, generator: torch.Generator) -> None:
    tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * std)


def _uniform_(tensor: Tensor, generator: torch.Generator) -> None:
    tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5)
