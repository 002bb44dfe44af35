"""SAP: how many weights go follows from how unequal they are, measured by the PQ index.

Diao et al., "Pruning Deep Neural Networks from a Sparsity Perspective", ICLR 2023,
arXiv 2302.05601, Definition 1 and Algorithm 1, over all tensors together. Letters: w the weights
left, d their number, I the index, m a lower bound on how many have to stay.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.errors import UsageError
from secateur.methods.mask_rules._select import surviving, without_smallest

# Far above the rounding of a mean of 10^9 numbers in float64, and less than one weight of these.
ROUNDING = 1e-10


def pq_index(weights: Tensor, p: float = 1.0, q: float = 2.0) -> float:
    """Measure how unequal weights are.

    I(w) = 1 - [mean |w|^p]^(1/p) / [mean |w|^q]^(1/q)

    It does not change with the scale of the weights, nor when all of them are doubled in number.

    Args:
        weights: Any shape, not empty.
        p: The lower norm, > 0.
        q: The higher norm, > p.

    Returns:
        Number in [0, 1): 0 where all are equal in magnitude (or zero), 1 - d^(1/q - 1/p) where all
        but one of d are zero.

    Example:
        >>> round(pq_index(torch.tensor([1.0, 2.0, 3.0, 4.0])), 4)
        0.0871
    """
    magnitude = weights.abs().flatten().double()
    largest = magnitude.max()
    if not bool(largest > 0):
        return 0.0
    # Neither overflow nor underflow of the powers: the index does not depend on scale.
    magnitude = magnitude / largest
    norms = [magnitude.pow(r).mean().pow(1 / r) for r in (p, q)]
    return max(0.0, 1 - float(norms[0] / norms[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class SAP:
    """Masks as many weights as the inequality of those left allows.

    m = ceil( d (1 + eta)^(-q/(q-p)) (1 - I)^(p q/(q-p)) )
    n = floor( d clip(gamma (1 - m/d), 0, beta) )       weights of the smallest magnitude go

    With (p, q) = (1, 2), m/d = (mean |w|)^2 / mean w^2: half of Laplace-distributed weights stay
    per level. (0.5, 1) is more careful: 79 % of them stay.

    Departure: the original also works by neuron or by layer; here all tensors are one pool, as in
    InfCoP. Of weights with equal magnitude the first ones go, so that n is met exactly.

    Args:
        p: Lower norm, > 0.
        q: Higher norm, > p.
        eta: Slack of the bound, >= 0: larger masks more.
        gamma: Factor on the share that the bound frees, > 0.
        beta: Largest share that goes at a level, in (0, 1).
    """

    p: float = 1.0
    q: float = 2.0
    eta: float = 0.0
    gamma: float = 1.0
    beta: float = 0.9

    def __post_init__(self) -> None:
        if not (0 < self.p < self.q and self.eta >= 0 and self.gamma > 0 and 0 < self.beta < 1):
            raise UsageError(
                f"{self} has no meaning: it needs 0 < p < q, eta >= 0, gamma > 0 and 0 < beta < 1. "
                "Common choices are SAP(p=1, q=2) and SAP(p=0.5, q=1)."
            )

    def lower_bound(self, weights: Tensor) -> int:
        """Say how many weights have to stay.

        Args:
            weights: The weights left, not empty.

        Returns:
            m, from 1 to d.
        """
        p, q, d = self.p, self.q, weights.numel()
        equality = 1 - pq_index(weights, p, q)
        bound: float = d * (1 + self.eta) ** (-q / (q - p)) * equality ** (p * q / (q - p))
        return min(d, max(1, math.ceil(bound * (1 - ROUNDING))))

    def next_masks(
        self,
        weights: Mapping[str, Tensor],
        kept: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Choose the masks of the next level; see `MaskRule`."""
        magnitudes = {name: weights[name].abs() for name in kept}
        pooled = surviving(magnitudes, kept)
        if len(pooled) == 0:
            return {name: mask.clone() for name, mask in kept.items()}
        free = self.gamma * (len(pooled) - self.lower_bound(pooled))
        count = math.floor(min(free, self.beta * len(pooled)))
        return without_smallest(magnitudes, kept, count)
