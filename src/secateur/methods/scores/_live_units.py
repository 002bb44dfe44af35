"""Scores of what is left, and of what is gone.

Letters: U units over all families.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.structure import Live


def live_units(live: Live) -> Tensor:
    """Say of every unit whether it is left.

    Args:
        live: What is left.

    Returns:
        Bool, families one after another, ``[U]``; empty for a model without families.
    """
    return torch.cat([*live.units, torch.ones(0, dtype=torch.bool)])


def only_live(score_U: Tensor, live: Live) -> Tensor:
    """Bring scores into the form that `Score.units` promises.

    Args:
        score_U: Scores of all units, ``[U]``, on any device.
        live: What is left.

    Returns:
        The same on the CPU, 0 where a unit is gone, ``[U]``.
    """
    live_U = live_units(live)
    score_U = score_U.detach().cpu()
    return torch.where(live_U, score_U, torch.zeros_like(score_U))
