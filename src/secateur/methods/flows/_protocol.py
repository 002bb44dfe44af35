"""What a stopper knows of a flow."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

Over = Literal["all", "alive"]
"""What an average is taken over: everything, or what is neither masked nor constant."""


class Flow(Protocol):
    """Measures a model as it is at the moment. It leaves the model as it was."""

    def measure(self) -> Tensor:
        """Measure.

        Returns:
            One number a layer, or a pair of layers, ``[L]``, on the model's device; the same ones
            at every call.
        """
        ...
