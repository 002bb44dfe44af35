"""How much the loss rises when a structure is switched off, estimated from gate gradients.

With L(xi) the loss as a function of one gate, g = L'(xi) measured under the gate that was drawn,
and h = L'', every estimator returns the rise L(0) - L(1).

`straight_through`    -E[g]; first order, 0 for whatever sits at an optimum.
`trapezoid`           -(E[g | on] + E[g | off]) / 2; exact for quadratic L, needs both gates seen.
`curvature_corrected` -E[g] + E[2 xi - 1] h / 2; exact for quadratic L wherever the gate was drawn,
                      with h from the spread of g over batches (Gauss-Newton).

Letters: S structures (units, then layers).
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import torch
from torch import Tensor

DECAY = 0.95


class Estimator(StrEnum):
    """Names of the estimators a user can choose."""

    CURVATURE_CORRECTED = "curvature-corrected"
    TRAPEZOID = "trapezoid"
    STRAIGHT_THROUGH = "straight-through"


def empty_moments(num_structures: int, device: torch.device | str) -> Tensor:
    """Return the moments of nothing seen.

    Args:
        num_structures: S.
        device: Where they live.

    Returns:
        Zeros ``[2, 3, S]``: for gates off and on, the running means of 1, g and B g².
    """
    return torch.zeros(2, 3, num_structures, dtype=torch.float64, device=device)


def update_moments(
    moments: Tensor, gradient_S: Tensor, on_S: Tensor, seen_S: Tensor, batch_size: int
) -> Tensor:
    """Add one step to the running moments.

    Args:
        moments: Running moments ``[2, 3, S]``.
        gradient_S: Gate gradients; only those seen have to be finite.
        on_S: True where the gate was on.
        seen_S: True where the gradient means something in this step.
        batch_size: B, the number of samples behind each gradient.

    Returns:
        The new moments ``[2, 3, S]``.
    """
    gradient_S = torch.where(seen_S, gradient_S, 0.0)
    sample = torch.stack([torch.ones_like(gradient_S), gradient_S, batch_size * gradient_S**2])
    gate = torch.stack([~on_S, on_S]).unsqueeze(1)
    return torch.where(seen_S, DECAY * moments + (1 - DECAY) * (gate * sample), moments)


def curvature(moments: Tensor, batch_size: float) -> Tensor:
    """Estimate h, the second derivative of the loss by each gate.

    For one sample's gradient g_i the Gauss-Newton curvature is E[g_i²] = Var[g_i] + E[g_i]². Over
    batches Var[g] = Var[g_i] / B, so h = B Var[g] + E[g]². The shorter B E[g²] would count a
    common slope B times.

    Args:
        moments: Running moments ``[2, 3, S]``.
        batch_size: B.

    Returns:
        h ``[S]``, never negative.
    """
    weight, slope, square = moments.unbind(dim=1)
    common = (batch_size - 1) * slope**2 / weight.clamp(min=_TINY)
    return (square - common).clamp(min=0).sum(dim=0) / weight.sum(dim=0).clamp(min=_TINY)


def straight_through(moments: Tensor, batch_size: float, factor_S: Tensor) -> Tensor:
    """Return -E[g] ``[S]``."""
    del batch_size, factor_S
    return -moments[:, 1].sum(dim=0) / moments[:, 0].sum(dim=0).clamp(min=_TINY)


def trapezoid(moments: Tensor, batch_size: float, factor_S: Tensor) -> Tensor:
    """Return -(E[g | on] + E[g | off]) / 2 ``[S]``; an end never seen is taken from the other."""
    del batch_size, factor_S
    weight, slope = moments[:, 0], moments[:, 1]
    mean = slope / weight.clamp(min=_TINY)
    mean = torch.where(weight > 0, mean, mean.flip(0))
    return -mean.mean(dim=0)


def curvature_corrected(moments: Tensor, batch_size: float, factor_S: Tensor) -> Tensor:
    """Return -E[g] + E[2 xi - 1] h / 2 ``[S]``.

    Args:
        moments: Running moments ``[2, 3, S]``.
        batch_size: B.
        factor_S: What each structure's h is multiplied with, from measurements.

    Returns:
        Estimated rise of the loss in nats.
    """
    weight = moments[:, 0]
    side = (weight[1] - weight[0]) / weight.sum(dim=0).clamp(min=_TINY)
    slope = straight_through(moments, batch_size, factor_S)
    return slope + side * factor_S * curvature(moments, batch_size) / 2


Rise = Callable[[Tensor, float, Tensor], Tensor]

RISE: dict[Estimator, Rise] = {
    Estimator.CURVATURE_CORRECTED: curvature_corrected,
    Estimator.TRAPEZOID: trapezoid,
    Estimator.STRAIGHT_THROUGH: straight_through,
}

_TINY = 1e-300
