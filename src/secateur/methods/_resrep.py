"""The settings of ResRep: how far to shrink, and how fast what was chosen is forgotten.

After X. Ding, T. Hao, J. Tan, J. Liu, J. Han, Y. Guo, G. Ding: "ResRep: Lossless CNN Pruning via
Decoupling Remembering and Forgetting", ICCV 2021, arXiv 2007.03260.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from secateur.errors import UsageError
from secateur.gates import compactable
from secateur.methods._checks import (
    check_at_least,
    check_reachable,
    check_settle_at,
    check_share,
)
from secateur.methods._resrep_search import ResRepSearch, ResRepTerms
from secateur.structure import Structure

DEFAULT_WARMUP = 4_000
_WARMUP_SHARE = 20
DEFAULT_INTERVAL = 200
_INTERVAL_SHARE = 200
_CHOOSING_SHARE = 0.6
_LEAST_FALL = 2


@dataclass(frozen=True, kw_only=True)
class ResRep:
    """Shrinks a trained network to a target by teaching matrices, not kernels, to forget units.

    Everything that reads a family of units is multiplied by a compactor, a square matrix that
    starts as the identity. A penalty shrinks its rows; more and more rows are chosen, those with
    the smallest norm first, and see no gradient of the loss any more, until they are exactly zero.
    The kernels train on by the loss alone. In the end zero rows take their units with them.

    Attributes:
        target_macs: MACs at the end, as a share of the starting network's, in (0, 1).
        penalty: By how much, times the learning rate, a row's norm falls in a step if no gradient
            resists; 0 for none. 0.01 is the published 1e-4 under a momentum of 0.99.
        momentum: Momentum of the compactors, in [0, 1).
        warmup: Steps before rows are chosen. None chooses 4000, at most a twentieth of the
            training.
        interval: Steps from one choice to the next. None chooses 200, at most a two-hundredth of
            the training.
        min_units: Units that every family keeps, at least 1.
        settle_at: Share of the training after which the network is final, in (0, 1].

    Raises:
        UsageError: A value is out of range.

    Example:
        >>> ResRep(target_macs=0.5).penalty
        0.01
    """

    target_macs: float
    penalty: float = 0.01
    momentum: float = 0.99
    warmup: int | None = None
    interval: int | None = None
    min_units: int = 1
    settle_at: float = 0.7

    def __post_init__(self) -> None:
        check_share("target_macs", self.target_macs, "the share of the MACs to end at")
        if not 0 <= self.penalty < math.inf:
            raise UsageError(
                f"penalty={self.penalty} is not a speed at which rows shrink. Give a finite number "
                "of at least 0, such as penalty=0.01."
            )
        meaning = "the momentum of the compactors"
        check_share("momentum", self.momentum, meaning, example=0.99, with_zero=True)
        check_settle_at(self.settle_at)
        check_at_least("warmup", self.warmup, 0)
        check_at_least("interval", self.interval, 1)
        check_at_least("min_units", self.min_units, 1)

    def begin(
        self,
        structure: Structure,
        *,
        total_steps: int,
        steps_per_epoch: int | None,
        generator: torch.Generator,
        device: torch.device | str,
    ) -> ResRepSearch:
        """Start a run.

        Args:
            structure: What the model is made of.
            total_steps: Optimizer steps of the whole training.
            steps_per_epoch: Optimizer steps of an epoch, which make no difference here.
            generator: Not used: nothing is random here.
            device: Not used: compactors live where the weights do.

        Returns:
            The run, at its first step.

        Raises:
            UsageError: The run is too short, or the target is below the smallest network there is.
        """
        settle = math.floor(self.settle_at * total_steps)
        warmup = self.warmup
        if warmup is None:
            warmup = min(DEFAULT_WARMUP, total_steps // _WARMUP_SHARE)
        until = warmup + math.ceil(_CHOOSING_SHARE * (settle - warmup))
        if settle - until < _LEAST_FALL:
            raise UsageError(
                f"total_steps={total_steps} leaves {settle - warmup} steps between the warm-up of "
                f"{warmup} and settling at {settle}, too few to choose rows and to forget them. "
                "Train longer, or choose a smaller warmup."
            )
        fewest = [family.num_units for family in structure.families]
        for family in compactable(structure):
            least = max(self.min_units, structure.families[family].fewest)
            fewest[family] = min(least, fewest[family])
        which = f"{self.min_units} unit(s) in every family that can have a compactor"
        check_reachable(structure, self.target_macs, fewest, which)
        terms = ResRepTerms(
            target=self.target_macs,
            penalty=self.penalty,
            momentum=self.momentum,
            warmup=warmup,
            until=until,
            fall=settle - until,
            interval=self.interval or max(1, min(DEFAULT_INTERVAL, total_steps // _INTERVAL_SHARE)),
            min_units=self.min_units,
        )
        return ResRepSearch(structure, terms)
