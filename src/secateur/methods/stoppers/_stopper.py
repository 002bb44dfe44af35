"""What a stopper is asked, and when; and how often in a row it has to agree."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from secateur.errors import UsageError


class Stopper(ABC):
    """Decides after each chunk of training whether the level is done.

    A level goes: `level_begins`, then `should_stop` after each chunk until it says so or the
    budget is spent, then `level_ends`. Level 0 is the dense network. A stopper knows neither the
    mask rule nor how weights are rewound; what it measures it has been given when it was made. All
    the time it takes is counted as the cost of measuring.

    Attributes:
        readings: What the last `should_stop` measured, by name; empty if it measured nothing.
        because: Why the last `should_stop` said yes; empty if it said no.
    """

    readings: dict[str, float]
    because: str

    def __init__(self) -> None:
        self.readings = {}
        self.because = ""

    def level_begins(self, level: int) -> None:  # noqa: B027 (a hook that most leave empty)
        """Prepare for a level; the weights are rewound and masked, nothing is trained yet.

        Args:
            level: Number of the level, 0 for the dense network.
        """

    @abstractmethod
    def should_stop(self, chunks: int) -> bool:
        """Say whether the level is done.

        Args:
            chunks: How many chunks have been trained at this level, from 1.

        Returns:
            True to end the level now.
        """

    def level_ends(self, level: int) -> None:  # noqa: B027 (a hook that most leave empty)
        """Take note that a level has been trained, by this stopper's word or not.

        Args:
            level: Number of the level.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what the next levels need of the last ones, at the end of a level."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Go on after the level at whose end `state_dict` was called.

        Args:
            state: What it returned.
        """


class Patience:
    """Counts how often in a row something held, and not before a first chunk.

    Args:
        times: How often in a row it has to hold, at least 1.
        min_chunks: Chunks that every level trains at least, at least 1.
        of: Name of the stopper, for messages.

    Raises:
        UsageError: A number is below 1.
    """

    def __init__(self, times: int, min_chunks: int, of: str) -> None:
        if times < 1 or min_chunks < 1:
            raise UsageError(
                f"{of} got patience={times} and min_chunks={min_chunks}. Both count from 1: "
                "patience=1 stops at the first hit, min_chunks=1 after the first chunk."
            )
        self._times = times
        self._min_chunks = min_chunks
        self._hits = 0

    def begin(self) -> None:
        """Forget the hits of the last level."""
        self._hits = 0

    def spares(self, chunks: int) -> bool:
        """Say whether nothing that is measured now could matter.

        Args:
            chunks: Chunks trained at this level.

        Returns:
            True where a hit could not be one of the hits that end the level.
        """
        return chunks <= self._min_chunks - self._times

    def after(self, hit: bool, chunks: int) -> bool:
        """Count a check.

        Args:
            hit: Whether it held.
            chunks: Chunks trained at this level.

        Returns:
            True where it has held often enough.
        """
        self._hits = self._hits + 1 if hit else 0
        return self._hits >= self._times and chunks >= self._min_chunks
