"""What a run tells its caller while it goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Phase = Literal["load", "train", "validate", "test", "measure", "report"]

SMALLEST_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a run stands.

    Attributes:
        phase: What it does just now.
        step: Optimizer steps taken.
        total_steps: Optimizer steps of the whole run; 0 while it is not known.
        epoch: Finished epochs.
        epochs: Epochs of the whole run.
        loss: Training loss of the last step, in nats.
        train_accuracy: Of this epoch so far, in [0, 1].
        validation_accuracy: After the last finished epoch, in [0, 1].
        macs_share: MACs left as a share of those at the start.
        price: In nats per 100 % of complexity; None without structure discovery.
    """

    phase: Phase
    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    train_accuracy: float | None = None
    validation_accuracy: float | None = None
    macs_share: float = 1.0
    price: float | None = None


OnProgress = Callable[[Progress], None]


class Pacer:
    """Says when there is time for another report, so that showing progress costs nothing."""

    def __init__(self) -> None:
        self._next = 0.0

    def is_due(self) -> bool:
        """Return True at most every fifth of a second."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + SMALLEST_PAUSE_SECONDS
        return True
