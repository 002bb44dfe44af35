"""When something is measured by an extra forward pass, and what.

Letters: U units, L layers, F families, S structures (units, then layers).
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.methods._nesting import Nesting
from secateur.methods._probes import (
    SUBSET_SHARE,
    Situation,
    Target,
    random_subset,
)
from secateur.methods._schedule import Schedule
from secateur.methods._statistics import Statistics
from secateur.structure import Structure


class Prober:
    """Plans one probe every `Schedule.interval` steps, from the middle of the warm-up on.

    Args:
        structure: Families and layers.
        nesting: Which structures lie in which layers.
        statistics: Where results go.
        schedule: When things happen.
        units: Whether subsets of families are measured.
        layers: Whether layers are measured.
    """

    def __init__(
        self,
        structure: Structure,
        nesting: Nesting,
        statistics: Statistics,
        schedule: Schedule,
        *,
        units: bool,
        layers: bool,
    ) -> None:
        self._structure = structure
        self._nesting = nesting
        self._statistics = statistics
        self._schedule = schedule
        self._units, self._layers = units, layers
        self._target: Target | None = None

    def plan(self, step: int, chance_S: Tensor, price_S: Tensor, alive_S: Tensor) -> None:
        """Choose what this step measures, if it is a step that measures.

        Args:
            step: Optimizer steps so far.
            chance_S: Probabilities.
            price_S: Prices in nats.
            alive_S: True for what is neither gone nor about to go.
        """
        self._target = None
        if step % self._schedule.interval or step < self._schedule.warmup // 2:
            return
        num_units = self._structure.num_units
        alive_S = alive_S & ~self._nesting.covered(~alive_S[num_units:])
        families_F = torch.zeros(len(self._structure.families), dtype=torch.bool)
        families_F[self._nesting.family_U[alive_S[:num_units]].cpu()] = self._units
        self._target = self._statistics.measured.choose(
            Situation(
                step=step,
                number=step // self._schedule.interval,
                layers_L=alive_S[num_units:].cpu() & self._layers,
                families_F=families_F,
                phi_L=chance_S[num_units:].cpu(),
                price_L=price_S[num_units:].cpu(),
            )
        )

    def needed_open(self) -> Tensor | None:
        """Return the layers that have to be on in this step's draw, bool ``[L]``.

        A layer whose probability is 0 would otherwise never be measured again, however useful it
        may have become; it is open for one step in hundreds.
        """
        if self._target is None:
            return None
        if self._target.layer is not None:
            open_L = self._nesting.above(self._target.layer).clone()
            open_L[self._target.layer] = True
            return open_L
        assert self._target.family is not None
        return self._nesting.around(self._target.family)

    def probe(self, open_U: Tensor, generator: torch.Generator) -> Tensor | None:
        """Return what the extra forward leaves on.

        Args:
            open_U: True for units that are on in this step's draw.
            generator: Source of randomness.

        Returns:
            Bool ``[S]``, or None if this step measures nothing.
        """
        if self._target is None:
            return None
        num_units, num_layers = self._structure.num_units, self._structure.num_layers
        on_S = torch.ones(num_units + num_layers, dtype=torch.bool, device=open_U.device)
        if self._target.layer is not None:
            on_S[num_units + self._target.layer] = False
            return on_S
        family = self._target.family
        assert family is not None
        num = max(1, round(SUBSET_SHARE * self._structure.families[family].num_units))
        open_U = open_U & (self._nesting.family_U == family)
        on_S[:num_units] = ~random_subset(open_U, num, generator)
        return on_S

    def answer(self, units_U: Tensor, rise: float) -> None:
        """Pass on what was measured.

        Args:
            units_U: The probe's units, False for those switched off.
            rise: Rise of the loss in nats.
        """
        target, self._target = self._target, None
        if target is None:
            return
        if target.layer is not None:
            self._statistics.add_layer(target.layer, rise)
        elif target.family is not None:
            self._statistics.add_units(target.family, ~units_U, rise)
