"""The settings of AOFP: what damage is tolerated, and where to stop.

After X. Ding, G. Ding, Y. Guo, J. Han, C. Yan: "Approximated Oracle Filter Pruning for Destructive
CNN Width Optimization", ICML 2019, arXiv 1905.04748.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from secateur.errors import UsageError
from secateur.methods._aofp_search import AOFPSearch, AOFPTerms
from secateur.methods._checks import (
    check_at_least,
    check_reachable,
    check_settle_at,
    check_share,
)
from secateur.structure import Structure

DEFAULT_WARMUP = 500
_WARMUP_SHARE = 20


@dataclass(frozen=True, kw_only=True)
class AOFP:
    """Finds the widths of a trained network from one tolerance, while it trains on.

    Random halves of every family are silenced at the family's next consumers only, and what that
    changes there, relative to what was there, is their damage. The half of a family with the
    smallest mean damage goes if it lies below the tolerance; if not, the search goes on inside it.

    Attributes:
        tolerance: Relative damage below which units may go, > 0; 0.01 is common, 0.05 for tiny
            networks. With a target it is where the search starts: it grows while the network is
            above a straight line to the target.
        target_macs: MACs at which to stop, as a share of the starting network's, in (0, 1).
        masks_per_half: Random halves that each decision looks at. Short runs look at fewer, so
            that there is time for 40 decisions a family.
        steps_per_half: Optimizer steps between decisions; None follows from ``masks_per_half``.
        warmup: Steps before anything is measured. None chooses 500, at most a twentieth of the
            training.
        min_units: Units that every family keeps, at least 1.
        settle_at: Share of the training after which the network is final, in (0, 1].

    Raises:
        UsageError: A value is out of range.

    Example:
        >>> AOFP(target_macs=0.5).tolerance
        0.01
    """

    tolerance: float = 0.01
    target_macs: float | None = None
    masks_per_half: int = 80_000
    steps_per_half: int | None = None
    warmup: int | None = None
    min_units: int = 1
    settle_at: float = 0.7

    def __post_init__(self) -> None:
        if not self.tolerance >= 0 or (self.tolerance == 0 and self.target_macs is not None):
            raise UsageError(
                f"tolerance={self.tolerance} is not a relative damage. Give a number above 0, such "
                "as tolerance=0.01: units go whose absence changes less than 1 % of the energy of "
                "what comes next."
            )
        check_share("target_macs", self.target_macs, "the share of the MACs to stop at")
        check_settle_at(self.settle_at)
        check_at_least("masks_per_half", self.masks_per_half, 2)
        check_at_least("steps_per_half", self.steps_per_half, 1)
        check_at_least("warmup", self.warmup, 0)
        check_at_least("min_units", self.min_units, 1)

    def begin(
        self,
        structure: Structure,
        *,
        total_steps: int,
        steps_per_epoch: int | None,
        generator: torch.Generator,
        device: torch.device | str,
    ) -> AOFPSearch:
        """Start a run.

        Args:
            structure: What the model is made of.
            total_steps: Optimizer steps of the whole training.
            steps_per_epoch: Optimizer steps of an epoch, which make no difference here.
            generator: The only source of randomness, used for nothing else.
            device: Where the statistics live.

        Returns:
            The run, at its first step.

        Raises:
            UsageError: The run is too short, or the target is below the smallest network there is.
        """
        settle = math.ceil(self.settle_at * total_steps)
        warmup = self.warmup
        if warmup is None:
            warmup = min(DEFAULT_WARMUP, total_steps // _WARMUP_SHARE)
        if warmup + (self.steps_per_half or 1) >= settle:
            raise UsageError(
                f"total_steps={total_steps} leaves {settle - warmup} steps between the warm-up of "
                f"{warmup} and settling at {settle}, and one decision takes "
                f"{self.steps_per_half or 1}. Train longer, or choose a smaller warmup or "
                "steps_per_half."
            )
        if self.target_macs is not None:
            fewest = [
                min(max(self.min_units, family.fewest), family.num_units)
                for family in structure.families
            ]
            which = f"{self.min_units} unit(s) in every family"
            check_reachable(structure, self.target_macs, fewest, which)
        terms = AOFPTerms(
            tolerance=self.tolerance,
            target=self.target_macs,
            masks_per_half=self.masks_per_half,
            steps_per_half=self.steps_per_half,
            warmup=warmup,
            settle=settle,
            min_units=self.min_units,
        )
        return AOFPSearch(structure, terms, generator, device)
