"""Loss and accuracy of a network over one part of the data."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Tally:
    """Sums of loss and hits, kept on the device until they are read."""

    def __init__(self) -> None:
        self.count = 0
        self._loss: Tensor | float = 0.0
        self._hits: Tensor | int = 0

    def add(self, loss: Tensor, logits_BK: Tensor, labels_B: Tensor) -> None:
        """Add a batch.

        Args:
            loss: Mean over the batch, in nats.
            logits_BK: What the network said, ``[B, K]``.
            labels_B: What is right, ``[B]``.
        """
        self.count += len(labels_B)
        self._loss = self._loss + loss.detach().double() * len(labels_B)
        self._hits = self._hits + (logits_BK.detach().argmax(dim=1) == labels_B).sum()

    @property
    def loss(self) -> float:
        """Mean loss, in nats."""
        return float(self._loss) / max(1, self.count)

    @property
    def accuracy(self) -> float:
        """Share of hits, in [0, 1]."""
        return int(self._hits) / max(1, self.count)

    def state_dict(self) -> dict[str, float | int]:
        """Return the sums."""
        return {"count": self.count, "loss": float(self._loss), "hits": int(self._hits)}

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        """Go on from sums.

        Args:
            state: What `state_dict` returned.
        """
        self.count = int(state["count"])
        self._loss, self._hits = float(state["loss"]), int(state["hits"])


def evaluate(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Tally:
    """Run a network over batches in evaluation mode; its mode is put back afterwards.

    Args:
        network: Images to logits.
        batches: Images ``[B, C, H, W]`` and labels ``[B]``.

    Returns:
        Loss (without label smoothing) and accuracy.
    """
    was_training = network.training
    network.eval()
    tally = Tally()
    with torch.no_grad():
        for images, labels in batches:
            logits = network(images)
            tally.add(F.cross_entropy(logits, labels), logits, labels)
    network.train(was_training)
    return tally
