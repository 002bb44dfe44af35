"""The recipe ``narrowed``: all widths scaled by one factor, trained from scratch.

The control that a found structure has to beat: Liu et al., "Rethinking the Value of Network
Pruning", ICLR 2019 (arXiv 1810.05270).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import nn

from secateur import models
from secateur.compare.recipes._job import Job, Made
from secateur.storage import save
from secateur.structure import trace
from secateur.surgery import redesign
from secateur.training import trainer

STEPS = 1024
"""Factors that are looked at, between 0 and 1."""


class NarrowedRecipe(trainer.Section):
    """Trains a network whose widths are all scaled to end at the budget.

    Attributes:
        recipe: The name.
    """

    recipe: Literal["narrowed"]
    has_budget: ClassVar[bool] = True
    fine_tunes: ClassVar[bool] = False

    def carry_out(self, job: Job) -> Made:
        """Train the narrowed network.

        Args:
            job: The cell.

        Returns:
            The network and its bill.

        Raises:
            UsageError: The network cannot be built at other widths.
        """
        model = job.base.model
        if model.name in models.available():
            narrowed = model.model_copy(update={"width": _width(job)})
        else:
            folder = job.folder / "narrowed"
            with trainer.own_threads(job.base.training.threads):
                save(_cut_evenly(job), folder)
            narrowed = model.model_copy(update={"weights": str(folder.resolve())})
        return job.train("training", job.base.model_copy(update={"model": narrowed}))


def _width(job: Job) -> float:
    """Find the width at which a reference network, which has one, meets the budget."""
    ground, own = job.ground, job.base.model.width

    def macs(factor: float) -> float:
        return trainer.count_macs(ground.network(own * factor), ground.image)

    return own * factor_for(macs, job.target * ground.macs)


def _cut_evenly(job: Job) -> nn.Module:
    """Build a network of another library with the same share of the units of every family."""
    ground = job.ground
    structure = trace(ground.network(), ground.image)

    def widths(factor: float) -> dict[str, int]:
        return {f.name: max(f.fewest, round(factor * f.num_units)) for f in structure.families}

    def macs(factor: float) -> float:
        return structure.cost.macs.value(torch.tensor(list(widths(factor).values())))

    factor = factor_for(macs, job.target * structure.cost.macs.value())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.base.training.seed)
        return redesign(ground.network, ground.image, widths(factor))


def factor_for(macs: Callable[[float], float], target: float) -> float:
    """Find the factor on the widths whose MACs come closest to a number.

    Args:
        macs: Factor in (0, 1] to MACs; it must not fall as the factor grows.
        target: MACs wanted.

    Returns:
        A factor in (0, 1], the smaller one of two that are equally close.

    Example:
        >>> factor_for(lambda factor: 1000 * factor**2, 250)
        0.5
    """
    low, high = 1, STEPS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if macs(middle / STEPS) <= target else (low, middle)
    return min((low / STEPS, high / STEPS), key=lambda factor: abs(macs(factor) - target))
