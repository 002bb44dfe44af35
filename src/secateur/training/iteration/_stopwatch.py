"""Seconds that a piece of work takes, the device's part included."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up seconds of wall-clock under names.

    Args:
        device: Where the work runs; it is waited for at both ends of every piece, so that what was
            queued before is not counted and what was queued within is.
        clock: Returns seconds.
    """

    def __init__(
        self, device: torch.device, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._device = device
        self._clock = clock
        self._seconds: dict[str, float] = {}

    @contextmanager
    def measure(self, name: str) -> Generator[None]:
        """Count the seconds of the block.

        Args:
            name: What they are added to.

        Yields:
            Nothing.
        """
        start = self._now()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + self._now() - start

    def take(self, name: str) -> float:
        """Return what has been counted under a name, and start again at 0.

        Args:
            name: As in `measure`.

        Returns:
            Seconds.
        """
        return self._seconds.pop(name, 0.0)

    def _now(self) -> float:
        if self._device.type != "cpu":
            torch.get_device_module(self._device).synchronize(self._device)
        return self._clock()
