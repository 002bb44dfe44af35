"""What a score is given, and what it answers: how important every unit, or every weight, is.

Letters: U units over all families.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.structure import Live, Structure

Loss = Callable[[nn.Module, Any], Tensor]
"""Called with the model and one batch; returns the mean loss over the batch, a scalar."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """What is to be scored. A score leaves all of it as it was, gradients and buffers included.

    Attributes:
        model: The model, in state ``live`` of ``structure``.
        structure: What the model was made of when it was traced.
        live: What is left of it.
        batches: Data the loss understands; gone through once a score. May be empty for scores
            that need no data.
        loss: The mean loss of a batch; None for scores that need no data.
        generator: The only source of randomness, on the CPU.
    """

    model: nn.Module
    structure: Structure
    live: Live
    batches: Iterable[Any] = ()
    loss: Loss | None = None
    generator: torch.Generator

    def data(self) -> Iterator[Any]:
        """Go through the batches.

        Yields:
            Each batch.

        Raises:
            UsageError: There is no loss or no batch.
        """
        if self.loss is None:
            raise UsageError(
                "This score measures a loss, and none was given. Pass loss=, a function of the "
                "model and a batch, such as `lambda model, batch: "
                "F.cross_entropy(model(batch[0]), batch[1])`, or use a score that needs no data."
            )
        number = -1
        for number, batch in enumerate(self.batches):  # noqa: B007 (it is read after the loop)
            yield batch
        if number < 0:
            raise UsageError(
                "This score measures a loss, and there is no batch to measure it on. Pass data=, "
                "an iterable of batches such as a DataLoader or a list; an iterator that is used "
                "up yields nothing the second time."
            )

    def loss_of(self, batch: Any) -> Tensor:
        """Measure the loss of the model as it is at the moment.

        Args:
            batch: One of `data`.

        Returns:
            A scalar.

        Raises:
            UsageError: The loss is not a finite scalar.
        """
        assert self.loss is not None
        value = self.loss(self.model, batch)
        _check_scalar(value)
        return value

    def losses(self) -> Iterator[Tensor]:
        """Go through the batches.

        Returns:
            The loss of each batch, a scalar of the model as it is at that moment.
        """
        return map(self.loss_of, self.data())


class Score(Protocol):
    """Ranks units.

    Attributes:
        needs_data: Whether batches and a loss are needed.
    """

    needs_data: bool

    def units(self, subject: Subject) -> Tensor:
        """Score every unit.

        Args:
            subject: The model.

        Returns:
            Importance of every unit of the traced model, families one after another, ``[U]``,
            float32 or float64 on the CPU; higher is more important, +inf is never to go. What is
            gone counts 0.
        """
        ...


class WeightScore(Protocol):
    """Ranks single weights.

    Attributes:
        needs_data: Whether batches and a loss are needed.
    """

    needs_data: bool

    def weights(self, subject: Subject, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Score every entry of the masked tensors.

        Args:
            subject: The model; what is masked is zero in it.
            masks: Canonical parameter name to a mask of its shape, nonzero where a weight is left.

        Returns:
            Name to saliency, in the mask's shape, >= 0, float32 or float64; 0 for what is masked.
        """
        ...


def _check_scalar(value: object) -> None:
    if not isinstance(value, Tensor) or value.dim() != 0:
        shape = list(value.shape) if isinstance(value, Tensor) else None
        what = repr(value) if shape is None else f"a tensor of shape {shape}"
        raise UsageError(
            f"The loss of a batch is {what}, expected a scalar tensor. Let the loss return the "
            "mean over the batch."
        )
    if not bool(torch.isfinite(value.detach())):
        raise UsageError(
            f"The loss of a batch is {float(value.detach())}, and scores of it would mean nothing. "
            "Check the data and the model, or leave the batch out."
        )
