"""What a model costs, as polynomials in the numbers of live units and layers.

Convention: one multiply-accumulate is one MAC, and FLOPs are twice the MACs. Counted are the
contractions (convolution, linear, matrix products, attention); element-wise work is not.
A term is ``coefficient * prod(layers) * prod(factors)``; a factor is the live size of one axis,
``fixed + sum over families of multiplicity * live units``. A convolution inside a residual stream
meets its family on both sides, so terms are of degree two in a family and E[n^2] differs from
E[n]^2 under independent gates; `Polynomial.expectation` takes that into account.

Letters: T terms, Q distinct factors, F families, U units over all families, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Factor:
    """Live size of one axis: ``fixed + sum(multiplicity * live units)``.

    Attributes:
        fixed: Positions that no unit owns.
        multiplicity: (family, positions a unit of it owns), sorted by family.
    """

    fixed: float
    multiplicity: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Term:
    """One product of the cost.

    Attributes:
        coefficient: Constant part.
        factors: Axes that can shrink.
        layers: Indices of the removable layers that all have to live for the term to count.
    """

    coefficient: float
    factors: tuple[Factor, ...] = ()
    layers: tuple[int, ...] = ()


class Polynomial:
    """A sum of terms, evaluated in a handful of tensor operations.

    Args:
        terms: The products; an empty sequence is the constant 0.
        num_units: Units of each family, ``[F]``.
        num_layers: L.

    Raises:
        ValueError: One term has three factors that depend on the same family.
    """

    def __init__(self, terms: Sequence[Term], num_units: Sequence[int], num_layers: int) -> None:
        self.terms = tuple(terms)
        self.num_layers = num_layers
        self._num_units = torch.tensor(list(num_units), dtype=torch.int64)
        num_families = len(num_units)
        merged: dict[tuple[tuple[Factor, ...], tuple[int, ...]], float] = {}
        for term in terms:
            key = (_covarying_first(term.factors), term.layers)
            merged[key] = merged.get(key, 0.0) + term.coefficient
        distinct: dict[Factor, int] = {}
        for factors, _ in merged:
            for factor in factors:
                distinct.setdefault(factor, len(distinct))
        one = len(distinct)
        degree = max((len(factors) for factors, _ in merged), default=0)
        depth = max((len(layers) for _, layers in merged), default=0)
        self._coefficient_T = torch.tensor(list(merged.values()), dtype=torch.float64)
        factor_TD = np.full((len(merged), max(degree, 2)), one)
        layer_TD = np.full((len(merged), max(depth, 1)), num_layers)
        fixed_Q = np.ones(one + 1)
        multiplicity_QF = np.zeros((one + 1, num_families))
        for factor, q in distinct.items():
            fixed_Q[q] = factor.fixed
            for family, multiplicity in factor.multiplicity:
                multiplicity_QF[q, family] = multiplicity
        for t, (factors, layers) in enumerate(merged):
            factor_TD[t, : len(factors)] = [distinct[factor] for factor in factors]
            layer_TD[t, : len(layers)] = layers
        self._factor_TD = torch.from_numpy(factor_TD)
        self._layer_TD = torch.from_numpy(layer_TD)
        self._fixed_Q = torch.from_numpy(fixed_Q)
        self._multiplicity_QF = torch.from_numpy(multiplicity_QF)
        first, second = self._factor_TD[:, 0], self._factor_TD[:, 1]
        shared_TF = self._multiplicity_QF[first] * self._multiplicity_QF[second]
        self._squared_T = torch.nonzero(shared_TF.any(dim=1)).flatten()
        self._shared_SF = shared_TF[self._squared_T]
        self._family_U = torch.repeat_interleave(torch.arange(num_families), self._num_units)

    def to(self, device: torch.device | str) -> Polynomial:
        """Return a copy whose tensors live on a device."""
        copy = object.__new__(Polynomial)
        for name, value in vars(self).items():
            setattr(copy, name, value.to(device) if isinstance(value, Tensor) else value)
        return copy

    def value(self, counts: Tensor | None = None, layers: Tensor | None = None) -> float:
        """Evaluate at numbers of live units and layers.

        Args:
            counts: Live units a family, ``[F]``; None means all.
            layers: 1 or True for each live layer, ``[L]``; None means all.

        Returns:
            The cost, in MACs or parameters.
        """
        device = self._coefficient_T.device
        counts_F = self._num_units if counts is None else counts.to(device)
        layers_L = (
            torch.ones(self.num_layers, device=device) if layers is None else layers.to(device)
        )
        value_TD = self._factors(counts_F.to(torch.float64))
        return float((self._weights(layers_L) * value_TD.prod(dim=1)).sum())

    def expectation(self, theta_U: Tensor, phi_L: Tensor) -> Tensor:
        """Evaluate the mean cost under independent Bernoulli gates; differentiable.

        Args:
            theta_U: Probability that each unit lives, families one after another, ``[U]``.
            phi_L: Probability that each layer lives, ``[L]``.

        Returns:
            E[cost], a scalar in float64.
        """
        theta_U = theta_U.to(torch.float64)
        zeros_F = theta_U.new_zeros(len(self._num_units))
        mean_F = zeros_F.index_add(0, self._family_U, theta_U)
        value_TD = self._factors(mean_F)
        product_T = value_TD.prod(dim=1)
        if len(self._squared_T):
            variance_F = zeros_F.index_add(0, self._family_U, theta_U * (1 - theta_U))
            rest_S = value_TD[self._squared_T, 2:].prod(dim=1)
            product_T = product_T.index_add(
                0, self._squared_T, (self._shared_SF @ variance_F) * rest_S
            )
        return (self._weights(phi_L) * product_T).sum()

    def gradient(self, theta_U: Tensor, phi_L: Tensor) -> tuple[Tensor, Tensor]:
        """Differentiate `expectation`.

        Args:
            theta_U: As in `expectation`, ``[U]``.
            phi_L: As in `expectation`, ``[L]``.

        Returns:
            dE[cost]/dtheta ``[U]`` and dE[cost]/dphi ``[L]``, float64.
        """
        with torch.enable_grad():
            theta_U = theta_U.detach().to(torch.float64).requires_grad_()
            phi_L = phi_L.detach().to(torch.float64).requires_grad_()
            mean = self.expectation(theta_U, phi_L)
            if not mean.requires_grad:
                return torch.zeros_like(theta_U), torch.zeros_like(phi_L)
            d_theta_U, d_phi_L = torch.autograd.grad(
                mean, (theta_U, phi_L), allow_unused=True, materialize_grads=True
            )
        return d_theta_U, d_phi_L

    def _factors(self, counts_F: Tensor) -> Tensor:
        value_Q = self._fixed_Q + self._multiplicity_QF @ counts_F
        return value_Q[self._factor_TD]

    def _weights(self, layers_L: Tensor) -> Tensor:
        padded = torch.cat([layers_L.to(torch.float64), self._coefficient_T.new_ones(1)])
        return self._coefficient_T * padded[self._layer_TD].prod(dim=1)


def _covarying_first(factors: tuple[Factor, ...]) -> tuple[Factor, ...]:
    """Move the one pair of factors that share a family to the front."""
    pairs = [
        (i, j)
        for i in range(len(factors))
        for j in range(i + 1, len(factors))
        if {f for f, _ in factors[i].multiplicity} & {f for f, _ in factors[j].multiplicity}
    ]
    if not pairs:
        return factors
    if len(pairs) > 1:
        raise ValueError(
            f"a cost term has {len(pairs)} pairs of factors that depend on the same family, "
            "expected at most one. Please report the model."
        )
    i, j = pairs[0]
    rest = tuple(factor for k, factor in enumerate(factors) if k not in (i, j))
    return (factors[i], factors[j], *rest)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cost:
    """What one forward pass of the traced example costs, and how many parameters there are.

    Attributes:
        macs: Multiply-accumulates of one forward pass of the example inputs (all of the batch).
        params: Number of parameter elements, ties counted once.
    """

    macs: Polynomial
    params: Polynomial
