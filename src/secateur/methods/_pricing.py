"""What every structure costs in shares of a reference network, before the price per share.

C = alpha MACs / MACs_0 + (1 - alpha) params / params_0, with alpha the compute share and MACs_0,
params_0 those of the reference. beta, the layer share, weighs the two kinds of structures.

Letters: U units, L layers, S structures (units, then layers).
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.methods._nesting import Nesting
from secateur.structure import Polynomial, Structure

Mix = tuple[tuple[float, Polynomial], ...]
"""Weights and polynomials whose weighted sum is C."""

# Where a layer's probability is 0, its units are priced as if it were this: the price given that
# the layer is on is a ratio of two numbers that both go to 0.
_SMALLEST_CHANCE = 1e-6


def mix(structure: Structure, compute_share: float, reference: tuple[float, float]) -> Mix:
    """Return C as weighted polynomials, those of weight 0 left out.

    Args:
        structure: Whose cost is measured.
        compute_share: alpha.
        reference: MACs and parameters of the reference network.

    Returns:
        Pairs of weight and polynomial.
    """
    weights = (compute_share / reference[0], (1 - compute_share) / reference[1])
    polynomials = (structure.cost.macs, structure.cost.params)
    return tuple((w, p) for w, p in zip(weights, polynomials, strict=True) if w > 0)


class Pricing:
    """The expected cost and its derivative by every structure's probability.

    Args:
        complexity: C.
        nesting: Which structures lie in which layers.
        layer_share: beta.
        device: Where probabilities live.
    """

    def __init__(
        self, complexity: Mix, nesting: Nesting, layer_share: float, device: torch.device | str
    ) -> None:
        self._complexity = tuple((weight, p.to(device)) for weight, p in complexity)
        self._nesting = nesting
        self._unit_weight = 2 * (1 - layer_share)
        self._layer_weight = 2 * layer_share

    def share(self, probability_S: Tensor) -> Tensor:
        """Return the expected C, a scalar.

        Args:
            probability_S: theta and phi; 0 for what is gone.
        """
        theta_U, phi_L = self._split(probability_S)
        terms = [weight * p.expectation(theta_U, phi_L) for weight, p in self._complexity]
        return torch.stack(terms).sum()

    def price(self, probability_S: Tensor, present_S: Tensor) -> Tensor:
        """Return dC by every probability, given that the layers around the structure are on.

        Worth is only seen while the surrounding layers are on, so the cost is counted for that
        case as well: both sides of the comparison lose the same factor.

        Args:
            probability_S: theta and phi; 0 for what is gone.
            present_S: False for what is gone.

        Returns:
            Price per nu ``[S]``, times 2 (1 - beta) for units and 2 beta for layers; 0 for what is
            gone.
        """
        theta_U, phi_L = self._split(probability_S)
        present_L = present_S[len(theta_U) :]
        chance_L = torch.where(present_L, phi_L.clamp(min=_SMALLEST_CHANCE), 0.0)
        price_U, price_L = torch.zeros_like(theta_U), torch.zeros_like(phi_L)
        for weight, polynomial in self._complexity:
            by_unit_U, by_layer_L = polynomial.gradient(theta_U, chance_L)
            price_U += weight * by_unit_U
            price_L += weight * by_layer_L
        price_S = torch.cat([self._unit_weight * price_U, self._layer_weight * price_L])
        chance_S = self._nesting.chance(torch.where(present_L, chance_L, 1.0))
        return torch.where(present_S, price_S / chance_S, 0.0)

    def _split(self, values_S: Tensor) -> tuple[Tensor, Tensor]:
        num_units = len(self._nesting.family_U)
        return values_S[:num_units], values_S[num_units:]


class HardCost:
    """C of a network of which some structures are left, counted exactly.

    Args:
        complexity: C.
        structure: Families and layers.
    """

    def __init__(self, complexity: Mix, structure: Structure) -> None:
        self._complexity = complexity
        self._nesting = Nesting(structure, "cpu")
        self._num_families = len(structure.families)

    def __call__(self, kept_S: Tensor) -> float:
        """Count.

        Args:
            kept_S: True for what is left, bool on the CPU.

        Returns:
            C.
        """
        family_U = self._nesting.family_U
        present_S = kept_S & ~self._nesting.covered(~kept_S[len(family_U) :])
        counts_F = torch.bincount(
            family_U, weights=present_S[: len(family_U)].double(), minlength=self._num_families
        )
        layers_L = present_S[len(family_U) :]
        return sum(weight * p.value(counts_F, layers_L) for weight, p in self._complexity)
