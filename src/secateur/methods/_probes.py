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

SUBSET_SHARE = 1 / 8
_LAYER_MEMORY = 4
_FAMILY_DECAY = 0.8
_PRIOR = 0.5
_FACTORS = (0.1, 10.0)
_LAYER_WEIGHT = 3.0


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
        layers_L: True for layers that can be probed.
        families_F: True for families that can be probed.
        phi_L: Probabilities of the layers.
        price_L: Prices of the layers in nats.
    """

    step: int
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
        # Decayed sums over a family's probes: measured, predicted, number.
        self.sums_F3 = torch.zeros(num_families, 3, dtype=torch.float64, device=device)

    def choose(self, now: Situation) -> Target | None:
        """Return the structure that has waited longest, uncertain layers counted as waiting more.

        Args:
            now: What can be probed, and what is known.

        Returns:
            The next target, or None if there is nothing to probe.
        """
        waited_F = now.step - self.last_F + 1
        waited_L = (now.step - self.last_L + 1) * self._urgency(now)
        waiting = torch.cat(
            [
                torch.where(now.layers_L, waited_L, -1.0),
                torch.where(now.families_F, waited_F, -1.0),
            ]
        )
        if len(waiting) == 0 or float(waiting.max()) < 0:
            return None
        number, num_layers = int(waiting.argmax()), len(self.rise_L)
        if number < num_layers:
            self.last_L[number] = now.step
            return Target(layer=number)
        self.last_F[number - num_layers] = now.step
        return Target(family=number - num_layers)

    def _urgency(self, now: Situation) -> Tensor:
        error_L = (self.variance_L / self.count_L.clamp(1, _LAYER_MEMORY)).sqrt()
        doubt_L = torch.where(now.price_L > 0, error_L / now.price_L, 0.0).clamp(max=2)
        return _LAYER_WEIGHT * (1 + doubt_L + 2 * (1 - now.phi_L))

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
        sample = torch.stack([second_order, predicted, torch.ones_like(predicted)])
        self.sums_F3[family] = _FAMILY_DECAY * self.sums_F3[family] + sample

    def factor(self) -> Tensor:
        """Return what each family's curvature is multiplied with, ``[F]``; 1 until measured."""
        measured_F, predicted_F, num_F = self.sums_F3.unbind(dim=1)
        prior_F = _PRIOR * predicted_F / num_F.clamp(min=1e-9)
        factor_F = (measured_F + prior_F) / (predicted_F + prior_F)
        return torch.where(predicted_F > 0, factor_F, 1.0).clamp(*_FACTORS)


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
