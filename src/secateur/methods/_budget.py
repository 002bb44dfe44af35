"""The price that makes a network end at a target complexity.

Dual ascent on log nu, with a term for the present gap beside the accumulated one: the probabilities
answer to the price like an integrator, and ascent on the accumulated gap alone would swing around
the target for ever. In units of the patience T, with C falling at about half a unit per T and unit
of log nu, the two gains below damp the swing critically.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from secateur.methods._protocol import State

GAIN = 10.0
ACCUMULATED_GAIN = 10.0
# Part of the time between warm-up and settling in which the target falls to its end.
FALL = 0.75
_MOST = 12.0


def target_share(step: int, *, first: float, last: float, warmup: int, settle: int) -> float:
    """Return the complexity wanted at a step: a cosine from the first to the last.

    Args:
        step: Optimizer steps so far.
        first: Complexity at the start.
        last: The user's target.
        warmup: Step at which the fall begins.
        settle: Step at which the network is final; the fall ends at `FALL` of the way.

    Returns:
        Wanted complexity.
    """
    part = (step - warmup) / (FALL * (settle - warmup))
    part = min(max(part, 0.0), 1.0)
    return last + (first - last) * (1 + math.cos(math.pi * part)) / 2


def opening_price(rise_S: Tensor, price_S: Tensor, target: float) -> float:
    """Guess the price from worth per cost, before anything has moved.

    Half of what has to go in the end should cost more than it is worth at the start; the ascent
    does the rest.

    Args:
        rise_S: Worth in nats.
        price_S: Cost per nu.
        target: Complexity wanted at the end, as a share of the present one.

    Returns:
        nu > 0.
    """
    priced_S = price_S > 0
    ratio, order = (rise_S[priced_S] / price_S[priced_S]).sort()
    below = price_S[priced_S][order].cumsum(0)
    if len(below) == 0:
        return 1.0
    wanted = (1 - target) / 2 * below[-1:]
    nu = float(ratio[torch.searchsorted(below, wanted).clamp(max=len(ratio) - 1)])
    positive = ratio[ratio > 0]
    smallest = float(positive[0]) if len(positive) else 1.0
    return max(nu, smallest)


class Ascent:
    """The price over time.

    Args:
        patience: T.

    Attributes:
        price: nu.
        opening: Logarithm of the price the ascent began with.
        accumulated: Accumulated gap in units of log nu.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self.price = 0.0
        self.opening = 0.0
        self.accumulated = 0.0

    def open(self, price: float) -> None:
        """Begin with a price."""
        self.opening = math.log(price)
        self.price = price

    def update(self, gap: float, num_steps: int) -> None:
        """Move the price.

        Args:
            gap: Complexity minus wanted complexity.
            num_steps: Optimizer steps since the last update.
        """
        change = ACCUMULATED_GAIN * gap * num_steps / self._patience
        self.accumulated = min(max(self.accumulated + change, -_MOST), _MOST)
        self.price = math.exp(self.opening + self.accumulated + GAIN * gap)

    def state_dict(self) -> State:
        """Return what a resumed run needs."""
        return {"price": self.price, "opening": self.opening, "accumulated": self.accumulated}

    def load_state_dict(self, state: State) -> None:
        """Continue from what `state_dict` returned."""
        self.price = float(state["price"])
        self.opening = float(state["opening"])
        self.accumulated = float(state["accumulated"])
