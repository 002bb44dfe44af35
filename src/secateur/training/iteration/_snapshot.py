"""Copies of a model and of its training, that share nothing with them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Stateful(Protocol):
    """What else a training goes by: a learning rate schedule, a gradient scaler, an average."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> object:
        """Take over a state."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trained:
    """What levels train.

    Attributes:
        model: The model.
        optimizer: Its optimizer.
        also: Schedules, scalers, averages.
    """

    model: nn.Module
    optimizer: Optimizer
    also: Sequence[Stateful] = ()


def copy_model(trained: Trained) -> dict[str, Tensor]:
    """Copy all parameters and buffers, persistent or not.

    Args:
        trained: The model.

    Returns:
        Tensors by qualified name.
    """
    return {name: tensor.detach().clone() for name, tensor in _tensors(trained.model).items()}


@torch.no_grad()
def restore_model_(trained: Trained, tensors: dict[str, Tensor]) -> None:
    """Write what `copy_model` returned into the same model.

    Args:
        trained: The model; its tensors stay the same objects.
        tensors: The copies.
    """
    for name, tensor in _tensors(trained.model).items():
        tensor.copy_(tensors[name])


def copy_training(trained: Trained) -> dict[str, Any]:
    """Copy the states of the optimizer and of what goes with it.

    Args:
        trained: The training.

    Returns:
        Nested states.
    """
    return {
        "optimizer": copy.deepcopy(trained.optimizer.state_dict()),
        "also": [copy.deepcopy(part.state_dict()) for part in trained.also],
    }


def restore_training_(trained: Trained, state: dict[str, Any]) -> None:
    """Load what `copy_training` returned; gradients are cleared.

    Args:
        trained: The training.
        state: The states; they may be loaded again.
    """
    # Optimizers keep the tensors they are given, so each loading gives copies.
    trained.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
    trained.optimizer.zero_grad(set_to_none=True)
    for part, own in zip(trained.also, state["also"], strict=True):
        part.load_state_dict(copy.deepcopy(own))


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}
