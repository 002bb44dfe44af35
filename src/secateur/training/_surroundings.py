"""What a forward pass depends on besides its arguments: random generators and autocast."""

from __future__ import annotations

import random
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Autocast:
    """State of autocast on one kind of device.

    Attributes:
        device_type: Such as ``cuda``.
        enabled: Whether operations choose their precision.
        dtype: The lower precision.
    """

    device_type: str
    enabled: bool
    dtype: torch.dtype

    @classmethod
    def present(cls, device_type: str) -> Autocast:
        """Return the state as it is now."""
        return cls(
            device_type=device_type,
            enabled=torch.is_autocast_enabled(device_type),
            dtype=torch.get_autocast_dtype(device_type),
        )

    def again(self) -> torch.autocast:
        """Return a context in which this state holds.

        It keeps no cache of cast weights: the cache would survive the zeroing of gates.
        """
        return torch.autocast(
            self.device_type, dtype=self.dtype, enabled=self.enabled, cache_enabled=False
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Randomness:
    """States of every random generator that a forward pass may ask.

    Attributes:
        device: The model's device.
        states: Python's, numpy's, torch's, and that of the device or None.
    """

    device: torch.device
    states: tuple[Any, Any, Tensor, Tensor | None]

    @classmethod
    def present(cls, device: torch.device) -> Randomness:
        """Return the states as they are now."""
        on_device = None
        if device.type != "cpu":
            on_device = torch.get_device_module(device).get_rng_state(device)
        numpy_state = np.random.get_state()  # noqa: NPY002
        return cls(
            device=device,
            states=(random.getstate(), numpy_state, torch.get_rng_state(), on_device),
        )

    def restore_(self) -> None:
        """Set the generators to these states."""
        python, numpy_state, cpu, on_device = self.states
        random.setstate(python)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if on_device is not None:
            torch.get_device_module(self.device).set_rng_state(on_device, self.device)

    @contextmanager
    def again(self) -> Generator[None]:
        """Return to these states for a moment.

        Yields:
            Nothing; afterwards the generators stand where they stood before.
        """
        now = Randomness.present(self.device)
        self.restore_()
        try:
            yield
        finally:
            now.restore_()
