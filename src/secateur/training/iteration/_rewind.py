"""Where a level starts from: everything as at the rewind point, or only how it was trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.training.iteration._snapshot import (
    Trained,
    copy_model,
    copy_training,
    restore_model_,
    restore_training_,
)


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
        self._training: dict[str, Any] = {}

    def remember(self, trained: Trained) -> None:
        """Copy everything; see `Rewind`."""
        self._tensors = copy_model(trained)
        self._training = copy_training(trained)

    def restore_(self, trained: Trained) -> None:
        """Put everything back; see `Rewind`."""
        restore_model_(trained, self._tensors)
        restore_training_(trained, self._training)


class RewindLearningRate:
    """Keeps the trained weights and restores optimizer and schedules only.

    Learning-rate rewinding, Renda et al., ICLR 2020, arXiv 2003.02389.
    """

    def __init__(self) -> None:
        self._training: dict[str, Any] = {}

    def remember(self, trained: Trained) -> None:
        """Copy the training's state; see `Rewind`."""
        self._training = copy_training(trained)

    def restore_(self, trained: Trained) -> None:
        """Put the training's state back; see `Rewind`."""
        restore_training_(trained, self._training)


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
        self._training: dict[str, Any] = {}

    def remember(self, trained: Trained) -> None:
        """Copy the training's state; see `Rewind`."""
        self._training = copy_training(trained)

    def restore_(self, trained: Trained) -> None:
        """Reset the model and put the training's state back; see `Rewind`."""
        self._reset(trained.model)
        restore_training_(trained, self._training)


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
