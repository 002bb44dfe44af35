"""Where a level starts from: everything as at the rewind point, or only how it was trained."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from secateur.errors import UsageError


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


class Rewind(Protocol):
    """A policy. It is asked once to remember, and before every level but the first to restore."""

    def remember(self, trained: Trained) -> None:
        """Take note of the rewind point; nothing may be shared with it.

        Args:
            trained: The dense network and its training, at the rewind point.
        """
        ...

    def restore_(self, trained: Trained) -> None:
        """Set the start of the next level; masks are applied afterwards.

        Args:
            trained: The network and its training, at the end of a level.
        """
        ...


class RewindAll:
    """Restores weights, biases, norms with their statistics, all other buffers, and the training.

    Frankle et al. 2019 (arXiv 1903.01611) call it late rewinding where the rewind point comes after
    some training. Everything is copied both ways. The released code of InfCoP shares biases with
    the point, so that they are rewound once only, and leaves norms as they are.
    """

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}
        self._training = _Training()

    def remember(self, trained: Trained) -> None:
        """Copy everything; see `Rewind`."""
        self._tensors = {n: t.detach().clone() for n, t in _tensors(trained.model).items()}
        self._training.remember(trained)

    @torch.no_grad()
    def restore_(self, trained: Trained) -> None:
        """Put everything back; see `Rewind`."""
        for name, tensor in _tensors(trained.model).items():
            tensor.copy_(self._tensors[name])
        self._training.restore_(trained)


class RewindLearningRate:
    """Keeps the trained weights and restores optimizer and schedules only.

    Learning-rate rewinding, Renda et al., ICLR 2020, arXiv 2003.02389.
    """

    def __init__(self) -> None:
        self._training = _Training()

    def remember(self, trained: Trained) -> None:
        """Copy the training's state; see `Rewind`."""
        self._training.remember(trained)

    def restore_(self, trained: Trained) -> None:
        """Put the training's state back; see `Rewind`."""
        self._training.restore_(trained)


class FineTune:
    """Goes on from the trained weights, with momentum, and schedules where they are."""

    def remember(self, trained: Trained) -> None:
        """Do nothing; see `Rewind`."""

    def restore_(self, trained: Trained) -> None:
        """Do nothing; see `Rewind`."""


class Reinitialise:
    """Starts every level from fresh weights: the control that tells what the rewind point is worth.

    Args:
        reset: Gives the model new parameters and buffers in place.
    """

    def __init__(self, reset: Callable[[nn.Module], object]) -> None:
        self._reset = reset
        self._training = _Training()

    def remember(self, trained: Trained) -> None:
        """Copy the training's state; see `Rewind`."""
        self._training.remember(trained)

    def restore_(self, trained: Trained) -> None:
        """Reset the model and put the training's state back; see `Rewind`."""
        self._reset(trained.model)
        self._training.restore_(trained)


class _Training:
    """Copies of the states of an optimizer and of what goes with it."""

    def __init__(self) -> None:
        self._optimizer: dict[str, Any] = {}
        self._also: list[dict[str, Any]] = []

    def remember(self, trained: Trained) -> None:
        self._optimizer = copy.deepcopy(trained.optimizer.state_dict())
        self._also = [copy.deepcopy(part.state_dict()) for part in trained.also]

    def restore_(self, trained: Trained) -> None:
        # Optimizers keep the tensors they are given, so each rewinding gives copies.
        trained.optimizer.load_state_dict(copy.deepcopy(self._optimizer))
        trained.optimizer.zero_grad(set_to_none=True)
        for part, state in zip(trained.also, self._also, strict=True):
            part.load_state_dict(copy.deepcopy(state))


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


REWINDS: Mapping[str, Callable[[], Rewind]] = {
    "all": RewindAll,
    "learning-rate": RewindLearningRate,
    "none": FineTune,
}


def rewind_named(name: str) -> Rewind:
    """Make a policy.

    Args:
        name: One of ``REWINDS``.

    Returns:
        The policy.

    Raises:
        UsageError: There is none of this name.
    """
    if name not in REWINDS:
        raise UsageError(
            f"There is no rewind policy {name!r}. Known are {', '.join(REWINDS)}; for fresh "
            "weights make a secateur.training.iteration.Reinitialise."
        )
    return REWINDS[name]()
