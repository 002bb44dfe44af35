"""Worth measured by switching things off for one extra forward pass.

Layers are few and far from quadratic, so each is measured for itself. Units are many: a random
subset of a family at a time tells how far the family's curvature is off, one factor a family. On
the probed batch the first-order part of the rise is known exactly from the gate gradients, so only
the second-order part is compared; that removes most of the noise.

Letters: U units, L layers, F families.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SUBSET_SHARE = 1 / 16
_LAYER_MEMORY = 4
_FAMILY_DECAY = 0.8
_PRIOR = 0.5
_FACTORS = (0.1, 1000.0)
_TINY = 1e-12
_FAMILY_TURN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the next probe measures: a layer, or random units of a family.

    Attributes:
        layer: Layer number, or None.
        family: Family number, or None.
    """

    layer: int | None = None
    family: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Situation:
    """What decides whose turn it is; tensors on the CPU.

    Attributes:
        step: Optimizer steps so far.
        number: Probes so far.
        layers_L: True for layers that can be probed.
        families_F: True for families that can be probed.
        phi_L: Probabilities of the layers.
        price_L: Prices of the layers in nats.
    """

    step: int
    number: int
    layers_L: Tensor
    families_F: Tensor
    phi_L: Tensor
    price_L: Tensor


class Measurements:
    """What probes found out.

    Args:
        num_layers: L.
        num_families: F.
        device: Where the gate gradients live.
    """

    def __init__(self, num_layers: int, num_families: int, device: torch.device | str) -> None:
        zeros_L = torch.zeros(num_layers, dtype=torch.float64)
        self.rise_L, self.variance_L = zeros_L.clone(), zeros_L.clone()
        self.count_L, self.last_L = zeros_L.clone(), zeros_L.clone()
        self.last_F = torch.zeros(num_families, dtype=torch.float64)
        # Decayed sums over a family's probes: measured over predicted, and number. Each probe
        # counts the same: the prediction may shrink a hundredfold while a network learns.
        self.sums_F2 = torch.zeros(num_families, 2, dtype=torch.float64, device=device)

    def choose(self, now: Situation) -> Target | None:
        """Return what has waited longest: a family every third time, else a layer.

        Args:
            now: What can be probed, and what is known.

        Returns:
            The next target, or None if there is nothing to probe.
        """
        any_layer, any_family = bool(now.layers_L.any()), bool(now.families_F.any())
        if any_family and (now.number % _FAMILY_TURN == 0 or not any_layer):
            family = int(torch.where(now.families_F, now.step - self.last_F + 1, 0).argmax())
            self.last_F[family] = now.step
            return Target(family=family)
        if not any_layer:
            return None
        waited_L = (now.step - self.last_L + 1) * self._urgency(now)
        layer = int(torch.where(now.layers_L, waited_L, 0).argmax())
        self.last_L[layer] = now.step
        return Target(layer=layer)

    def _urgency(self, now: Situation) -> Tensor:
        """Weigh waiting: more where measurements scatter by a price, and where a layer may go."""
        error_L = (self.variance_L / self.count_L.clamp(1, _LAYER_MEMORY)).sqrt()
        doubt_L = torch.where(now.price_L > 0, error_L / now.price_L, 0.0).clamp(max=2)
        return 1 + doubt_L + 2 * (1 - now.phi_L)

    def add_layer(self, layer: int, rise: float) -> None:
        """Take in the measured rise of a layer, in nats; recent measurements count more."""
        if not math.isfinite(rise):
            return
        self.count_L[layer] += 1
        weight = 1 / self.count_L[layer].clamp(max=_LAYER_MEMORY)
        gap = rise - self.rise_L[layer]
        self.rise_L[layer] += weight * gap
        self.variance_L[layer] = (1 - weight) * (self.variance_L[layer] + weight * gap**2)

    def add_units(
        self, family: int, subset_U: Tensor, rise: float, gradient_U: Tensor, curvature_U: Tensor
    ) -> None:
        """Take in the measured rise of a subset of a family's units.

        Args:
            family: Family number.
            subset_U: True for the units that were switched off.
            rise: Rise of the loss, in nats.
            gradient_U: Gate gradients of the same batch.
            curvature_U: Uncorrected curvature of every unit.
        """
        if not math.isfinite(rise):
            return
        subset_U = subset_U & gradient_U.isfinite()
        second_order = rise + torch.where(subset_U, gradient_U, 0.0).sum()
        predicted = torch.where(subset_U, curvature_U, 0.0).sum() / 2
        ratio = (second_order / predicted.clamp(min=_TINY)).clamp(0, _FACTORS[1])
        sample = torch.stack([ratio, torch.ones_like(ratio)])
        self.sums_F2[family] = _FAMILY_DECAY * self.sums_F2[family] + sample

    def factor(self) -> Tensor:
        """Return what each family's curvature is multiplied with, ``[F]``; 1 until measured."""
        ratio_F, num_F = self.sums_F2.unbind(dim=1)
        return ((ratio_F + _PRIOR) / (num_F + _PRIOR)).clamp(*_FACTORS)


def random_subset(open_U: Tensor, num: int, generator: torch.Generator) -> Tensor:
    """Draw units without replacement.

    Args:
        open_U: True for units to draw from.
        num: How many; all of them where there are fewer.
        generator: Source of randomness.

    Returns:
        Bool ``[U]``.
    """
    key_U = torch.rand(len(open_U), generator=generator, device=generator.device)
    key_U = torch.where(open_U, key_U.to(open_U.device), 2.0)
    subset_U = torch.zeros_like(open_U)
    subset_U[key_U.topk(num, largest=False).indices] = True
    return subset_U & open_U
