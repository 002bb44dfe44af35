"""How gate probabilities move: one rule for a filter and for a whole layer.

A level of T is probability 1 and a level of 0 probability 0, where T is the patience in steps.
Each step a level moves by r - 1, with r the worth in units of the price, so that a structure of no
use is gone after T steps whatever its size. Levels may rise to (1 + RESERVE) T: what has proven
its worth is not switched off by a few noisy steps.

Letters: S structures (units, then layers).
"""

from __future__ import annotations

import torch
from torch import Tensor

RESERVE = 0.25
# Departure: symmetric about 1, where a structure just earns its price. An interval that reaches
# further down than up turns zero-mean noise into a drift towards removal.
LOWEST, HIGHEST = -1.0, 3.0


def relative_worth(rise_S: Tensor, price_S: Tensor) -> Tensor:
    """Return worth in units of the price.

    Args:
        rise_S: Rise of the loss when the structure is off, in nats.
        price_S: What the structure costs, in nats, >= 0.

    Returns:
        ``rise / price``; infinite for a structure that costs nothing, which so is never removed.
    """
    return torch.where(price_S > 0, rise_S / price_S, torch.inf)


def move(level_S: Tensor, worth_S: Tensor, seen_S: Tensor, patience: int) -> Tensor:
    """Take one step.

    Args:
        level_S: Levels in [0, (1 + RESERVE) T].
        worth_S: Relative worth.
        seen_S: True where the step says something about the structure; others stay.
        patience: T.

    Returns:
        New levels.
    """
    step_S = worth_S.clamp(LOWEST, HIGHEST) - 1
    moved_S = (level_S + step_S).clamp(0, (1 + RESERVE) * patience)
    return torch.where(seen_S, moved_S, level_S)


def probability(level_S: Tensor, patience: int) -> Tensor:
    """Return theta and phi: ``level / T``, at most 1."""
    return (level_S / patience).clamp(max=1)


def hold(held_S: Tensor, level_S: Tensor, worth_S: Tensor, seen_S: Tensor) -> Tensor:
    """Count the consecutive steps for which a structure has met the condition for removal.

    Args:
        held_S: Count so far.
        level_S: Levels after this step.
        worth_S: Relative worth.
        seen_S: True where the step says something about the structure; other counts stay.

    Returns:
        New count; 0 where the level is above 0 or the structure is worth its price.
    """
    idle_S = (level_S <= 0) & (worth_S < 1)
    return torch.where(seen_S, torch.where(idle_S, held_S + 1, 0), held_S)
