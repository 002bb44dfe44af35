"""Stoppers that look at a validation split."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from secateur.methods.stoppers._stopper import Patience, Stopper

Evaluate = Callable[[], float]
"""Returns one number for the model as it is; it leaves the model as it was."""


class AccuracyReached(Stopper):
    """Ends a level when the accuracy is as high as the dense network's.

    Give it the accuracy on a validation split: what the test split decides it can no longer judge.

    Args:
        evaluate: Returns the accuracy, higher is better.
        target: What has to be reached; None for the best that level 0 shows, which then trains
            until its budget is spent or another stopper ends it.
        margin: How far below the target is enough, >= 0.
        patience: How often in a row it has to be reached.
        min_chunks: Chunks that every level trains at least.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        *,
        target: float | None = None,
        margin: float = 0.0,
        patience: int = 1,
        min_chunks: int = 1,
    ) -> None:
        super().__init__()
        self._evaluate = evaluate
        self._given = target
        self._margin = margin
        self._patience = Patience(patience, min_chunks, type(self).__name__)
        self._level = 0
        self._best = -math.inf

    def level_begins(self, level: int) -> None:
        """Prepare for a level; see `Stopper`."""
        self._level = level
        self._patience.begin()
        if level == 0:
            self._best = -math.inf

    def should_stop(self, chunks: int) -> bool:
        """Say whether the level is done; see `Stopper`."""
        value = self._evaluate()
        self.readings = {"accuracy": value}
        self.because = ""
        if self._given is None and self._level == 0:
            self._best = max(self._best, value)
            return False
        target = self._best if self._given is None else self._given
        # Nothing is reached where nothing was seen: NaN and a level 0 without a check.
        hit = value >= target - self._margin and math.isfinite(target)
        stop = self._patience.after(hit, chunks)
        self.because = f"accuracy {value:.4g} reaches {target - self._margin:.4g}" if stop else ""
        return stop

    def state_dict(self) -> dict[str, Any]:
        """Return the dense level's best; see `Stopper`."""
        return {"best": self._best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the dense level's best over; see `Stopper`."""
        self._best = state["best"]


class LossPlateau(Stopper):
    """Ends a level when the loss has stopped falling.

    Args:
        evaluate: Returns the loss on a validation split, lower is better.
        patience: Checks in a row without a new best.
        min_delta: How far below the best a loss has to be to count as a new best, >= 0.
        min_chunks: Chunks that every level trains at least.
    """

    def __init__(
        self,
        evaluate: Evaluate,
        *,
        patience: int = 3,
        min_delta: float = 0.0,
        min_chunks: int = 1,
    ) -> None:
        super().__init__()
        self._evaluate = evaluate
        self._min_delta = min_delta
        self._patience = Patience(patience, min_chunks, type(self).__name__)
        self._best = math.inf

    def level_begins(self, level: int) -> None:
        """Forget the last level's losses; see `Stopper`."""
        self._best = math.inf
        self._patience.begin()

    def should_stop(self, chunks: int) -> bool:
        """Say whether the level is done; see `Stopper`."""
        value = self._evaluate()
        self.readings = {"loss": value}
        better = value < self._best - self._min_delta
        # A loss that is not a number is no plateau: it stands for nothing.
        stop = self._patience.after(not better and not math.isnan(value), chunks)
        self._best = min(self._best, value) if better else self._best
        self.because = f"loss {value:.4g} is no longer below {self._best:.4g}" if stop else ""
        return stop
