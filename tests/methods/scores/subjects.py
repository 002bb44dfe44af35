"""Models to score, and the plainest way to score them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.methods.scores import Loss, Subject
from secateur.structure import Live, Structure
from tests.structures import Built

Batch = tuple[Tensor, Tensor]


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def total(model: nn.Module, batch: Batch) -> Tensor:
    """Loss that is linear in the outputs: no hand arithmetic needs more."""
    return model(batch[0]).sum()


def batches_for(built: Built, number: int = 2, size: int = 8) -> list[Batch]:
    generator = torch.Generator().manual_seed(7)
    shape = built.example.shape[1:]
    return [
        (
            torch.randn(size, *shape, generator=generator),
            torch.randint(3, (size,), generator=generator),
        )
        for _ in range(number)
    ]


def subject_of(
    model: nn.Module,
    structure: Structure,
    *,
    live: Live | None = None,
    batches: Sequence[Any] = (),
    loss: Loss | None = cross_entropy,
    seed: int = 0,
) -> Subject:
    return Subject(
        model=model,
        structure=structure,
        live=structure.everything() if live is None else live,
        batches=batches,
        loss=loss,
        generator=torch.Generator().manual_seed(seed),
    )
