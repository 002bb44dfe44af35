"""Copies of models that `copy.deepcopy` refuses."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def copy_of(model: Model) -> Model:
    """Copy a model with everything in it.

    Some layers keep a tensor that was computed from their parameters, such as the weight of
    `torch.nn.utils.weight_norm`. PyTorch refuses to copy those; they are copied without history.

    Args:
        model: The model.

    Returns:
        The copy.
    """
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(model, computed)
