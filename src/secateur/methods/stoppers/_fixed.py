"""Stoppers that measure nothing: a fixed number of chunks, and the random control."""

from __future__ import annotations

import random
from collections.abc import Sequence

from secateur.errors import UsageError
from secateur.methods.stoppers._stopper import Stopper


class FixedChunks(Stopper):
    """Ends every level after the same number of chunks.

    Args:
        chunks: How many, at least 1.

    Raises:
        UsageError: The number is below 1.
    """

    def __init__(self, chunks: int) -> None:
        super().__init__()
        if chunks < 1:
            raise UsageError(
                f"FixedChunks({chunks}) would train nothing. Give at least one chunk a level."
            )
        self._chunks = chunks

    def should_stop(self, chunks: int) -> bool:
        """Say whether the level is done; see `Stopper`."""
        stop = chunks >= self._chunks
        self.because = f"{self._chunks} chunks" if stop else ""
        return stop


class RandomStop(Stopper):
    """Ends levels after given numbers of chunks, in random order: the control of a stopper.

    The dense level keeps its number: other stoppers seldom have a say there.

    Given what another stopper used in the same run, it spends the same budget without looking at
    the network. A stopper that is not better than this has only found a shorter budget.

    Args:
        chunks: Chunks of every level of the other run, such as ``report.chunks``.
        seed: Seed of the order.

    Raises:
        UsageError: There is none, or one is below 1.
    """

    def __init__(self, chunks: Sequence[int], *, seed: int = 0) -> None:
        super().__init__()
        if not chunks or min(chunks) < 1:
            raise UsageError(
                f"RandomStop got chunks={list(chunks)}. Give the chunks that every level of "
                "another run took, each at least 1, such as its report.chunks."
            )
        sparse = list(chunks[1:])
        # Its own generator, which nobody else draws from; this is no secret.
        random.Random(seed).shuffle(sparse)  # noqa: S311
        self._order = [chunks[0], *sparse]
        self._now = self._order[0]

    def level_begins(self, level: int) -> None:
        """Take the next number; see `Stopper`.

        Raises:
            UsageError: There are more levels than numbers.
        """
        if level >= len(self._order):
            raise UsageError(
                f"RandomStop was given the chunks of {len(self._order)} levels, and level {level} "
                "begins. Give one number for every level, the dense one included."
            )
        self._now = self._order[level]

    def should_stop(self, chunks: int) -> bool:
        """Say whether the level is done; see `Stopper`."""
        stop = chunks >= self._now
        self.because = f"drawn: {self._now} chunks" if stop else ""
        return stop
