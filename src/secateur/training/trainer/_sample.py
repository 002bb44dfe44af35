"""Some training images, and the loss on them, for what looks at a network without training it."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.data import Batches, Dataset
from secateur.training.trainer._config import TrainingConfig

Batch = tuple[Tensor, Tensor]


def training_sample(
    dataset: Dataset, settings: TrainingConfig, number: int, device: torch.device
) -> list[Batch]:
    """Take batches of training images, shuffled but not augmented.

    Args:
        dataset: Holds them.
        settings: Of the training: size of a batch, and seed of the order.
        number: Batches wanted.
        device: Where they go.

    Returns:
        Images ``[B, C, H, W]`` and labels ``[B]``; fewer batches where the images do not suffice.
    """
    batches = Batches(
        dataset,
        "train",
        min(settings.batch_size, len(dataset.train)),
        generator=torch.Generator().manual_seed(settings.seed),
        drop_last=True,
        device=device,
    )
    return list(itertools.islice(batches, number))


def batch_loss(network: nn.Module, batch: Batch) -> Tensor:
    """Compute the loss on a batch.

    Args:
        network: Images to logits.
        batch: Images ``[B, C, H, W]`` and labels ``[B]``.

    Returns:
        Mean cross-entropy, in nats.
    """
    images, labels = batch
    return F.cross_entropy(network(images), labels)
