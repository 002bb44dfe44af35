"""Ends a level when a flow of the sparse network is close to that of the dense one.

InfCoP (2025, arXiv 2501.15592). Letters: L entries of a flow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from secateur.errors import UsageError
from secateur.methods.flows import Flow
from secateur.methods.stoppers._stopper import Patience, Stopper

Norm = Literal["l2", "rms", "relative"]
Reference = Literal["dense_trained", "rewind_point"]


class FlowConsistency(Stopper):
    """Ends a level when ||c - r|| < eps, with c the flow of now and r the reference.

    With ``l2``, eps scales with the square root of the depth: 0.1 for the 17 pairs of a ResNet-18
    is 0.024 for each, which is what ``rms`` says. A flow that is not finite never ends a level.

    Departures: the released code has eps = 1 by default, which every network meets after the first
    chunk, and takes the flow at the rewind point as reference. A rewound network consists of the
    very weights of that point, without the small ones, so it can be close before it has learnt
    anything. Here the reference is that of the trained dense network unless asked otherwise.

    Args:
        flow: What is measured.
        eps: How close is close enough; for ``l2`` on information flow.
        reference: ``dense_trained``: measured at the end of level 0, which then trains its whole
            budget. ``rewind_point``: measured before level 0 is trained. Or a flow ``[L]``.
        norm: ``l2``; ``rms``, divided by sqrt(L); ``relative``, divided by the reference's norm.
        patience: How often in a row it has to be close: closeness is not monotone in training.
        min_chunks: Chunks that every level trains at least.

    Attributes:
        distance: The last distance; NaN before the first.
        reference: The reference, ``[L]``; None as long as it has not been measured.

    Raises:
        UsageError: A setting is unknown or out of range.
    """

    def __init__(
        self,
        flow: Flow,
        *,
        eps: float = 0.1,
        reference: Reference | Tensor = "dense_trained",
        norm: Norm = "l2",
        patience: int = 1,
        min_chunks: int = 1,
    ) -> None:
        super().__init__()
        known = isinstance(reference, Tensor) or reference in ("dense_trained", "rewind_point")
        if not known or norm not in _NORMS or not eps >= 0:
            raise UsageError(
                f"FlowConsistency got eps={eps}, reference={reference!r} and norm={norm!r}. eps is "
                "at least 0, reference is 'dense_trained', 'rewind_point' or a flow that was "
                f"measured, norm is one of {', '.join(map(repr, _NORMS))}."
            )
        self._flow = flow
        self._eps = eps
        self._source = reference
        self._norm = _NORMS[norm]
        self._patience = Patience(patience, min_chunks, type(self).__name__)
        self.reference = reference if isinstance(reference, Tensor) else None
        self.distance = math.nan

    def level_begins(self, level: int) -> None:
        """Measure the reference if it is the rewind point's; see `Stopper`."""
        self._patience.begin()
        if level == 0 and not isinstance(self._source, Tensor):
            self.reference = self._flow.measure() if self._source == "rewind_point" else None

    def should_stop(self, chunks: int) -> bool:
        """Say whether the level is done; see `Stopper`."""
        self.readings, self.because = {}, ""
        if self.reference is None or self._patience.spares(chunks):
            return False
        self.distance = self._distance(self._flow.measure(), self.reference)
        self.readings = {"flow distance": self.distance}
        stop = self._patience.after(self.distance < self._eps, chunks)
        self.because = f"flow distance {self.distance:.4g} < {self._eps:.4g}" if stop else ""
        return stop

    def level_ends(self, level: int) -> None:
        """Measure the reference if it is the trained dense network's; see `Stopper`."""
        if level == 0 and self.reference is None:
            self.reference = self._flow.measure()

    def state_dict(self) -> dict[str, Any]:
        """Return the reference; see `Stopper`."""
        return {"reference": self.reference}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the reference over; see `Stopper`."""
        self.reference = state["reference"]

    def _distance(self, flow: Tensor, reference: Tensor) -> float:
        if flow.shape != reference.shape:
            raise UsageError(
                f"The flow has {len(flow)} entries and its reference {list(reference.shape)}. A "
                "reference has to be measured on the same model with the same settings."
            )
        reference = reference.to(flow)
        distance = torch.linalg.vector_norm(flow - reference)
        # The only number that leaves the device.
        return float(distance / self._norm(reference))


def _one(reference: Tensor) -> Tensor | float:
    return 1.0


def _root_of_length(reference: Tensor) -> Tensor | float:
    return math.sqrt(max(1, len(reference)))


def _length(reference: Tensor) -> Tensor | float:
    norm: Tensor = torch.linalg.vector_norm(reference)
    return norm


_NORMS: Mapping[str, Callable[[Tensor], Tensor | float]] = {
    "l2": _one,
    "rms": _root_of_length,
    "relative": _length,
}
