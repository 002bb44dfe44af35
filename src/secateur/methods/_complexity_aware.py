"""The settings of complexity-aware training: what complexity is worth, and what complexity is.

After K. Guenter and A. Sideris: "Complexity-Aware Training of Deep Neural Networks for Optimal
Structure Discovery", 2024, arXiv 2411.09127; "Concurrent Training and Layer Pruning of Deep Neural
Networks", 2024, arXiv 2406.04549; "Robust Learning of Parsimonious Deep Neural Networks", 2022,
arXiv 2205.04650. The formulas are this project's own derivation from the stated aims.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from secateur.errors import UsageError
from secateur.methods._checks import check_at_least, check_settle_at, check_share
from secateur.methods._complexity_search import ComplexitySearch, Terms
from secateur.methods._estimators import Estimator
from secateur.methods._pricing import HardCost, mix
from secateur.methods._schedule import plan
from secateur.structure import Cost, Live, Structure

Reference = float | tuple[float, float] | Cost


@dataclass(frozen=True, kw_only=True)
class ComplexityAware:
    """Trains the network, its width and its depth at once.

    A structure stays if the loss would rise by more than ``price`` times its share of the
    complexity. Give a price, or a target from which the price is found.

    Attributes:
        price: Training loss in nats one pays to be rid of 100 % of the reference complexity, >= 0.
            0 is plain training.
        target_macs: MACs at the end as a share of the reference, in (0, 1).
        target_params: Parameters at the end as a share of the reference, in (0, 1).
        compute_share: What complexity is: 1 MACs, 0 parameters, in [0, 1]. None is 1, or 0 with
            ``target_params``.
        layer_share: Which structures are priced: 0 units only, 1 layers only, 0.5 both at face
            value, in [0, 1].
        reference: The complexity that counts as 100 %: a number of MACs (or of parameters where
            ``compute_share`` is 0), a pair (MACs, parameters), or the `Cost` of another network
            traced with inputs of the same shape. None is the network as it starts.
        patience: Steps in which a useless structure goes from probability 1 to 0. None chooses
            1.5 epochs, at least 300, at most a third of the time there is.
        warmup: Steps before the first structure may become less probable. None chooses 200, at
            most a fifth of the time before settling.
        hold: Steps a structure stays at probability 0 before it is removed. None is a quarter of
            the patience.
        settle_at: Share of the training after which the network is final, in (0, 1].
        estimator: How worth is estimated from gate gradients.

    Raises:
        UsageError: A value is out of range, or not exactly one of price and targets is given.

    Example:
        >>> ComplexityAware(price=0.3).compute_share is None
        True
    """

    price: float | None = None
    target_macs: float | None = None
    target_params: float | None = None
    compute_share: float | None = None
    layer_share: float = 0.5
    reference: Reference | None = None
    patience: int | None = None
    warmup: int | None = None
    hold: int | None = None
    settle_at: float = 0.7
    estimator: Estimator = Estimator.CURVATURE_CORRECTED

    def __post_init__(self) -> None:
        _check_one_goal(self.price, self.target_macs, self.target_params)
        if self.price is not None and not 0 <= self.price < math.inf:
            raise UsageError(
                f"price={self.price} is not a price. Give training loss in nats per 100 % of the "
                "complexity, 0 or more; 0.1 to 1 are common."
            )
        for name in ("target_macs", "target_params"):
            check_share(name, getattr(self, name))
        for name in ("compute_share", "layer_share"):
            check_share(name, getattr(self, name), with_zero=True, with_one=True)
        check_settle_at(self.settle_at)
        check_at_least("patience", self.patience, 1)
        check_at_least("warmup", self.warmup, 0)
        check_at_least("hold", self.hold, 1)
        if self.estimator not in list(Estimator):
            raise UsageError(
                f"estimator={self.estimator!r} is not known. "
                f"Choose one of {', '.join(repr(str(known)) for known in Estimator)}."
            )
        _check_reference(self.reference, self._alpha)

    @property
    def _alpha(self) -> float:
        if self.compute_share is None:
            return 1.0 if self.target_params is None else 0.0
        return self.compute_share

    def begin(
        self,
        structure: Structure,
        *,
        total_steps: int,
        steps_per_epoch: int | None,
        generator: torch.Generator,
        device: torch.device | str,
    ) -> ComplexitySearch:
        """Start a run.

        Args:
            structure: What the model is made of.
            total_steps: Optimizer steps of the whole training.
            steps_per_epoch: Optimizer steps of an epoch; None where there are no epochs.
            generator: The only source of randomness, used for nothing else.
            device: Where the statistics live.

        Returns:
            The run, at its first step.

        Raises:
            UsageError: The run is too short, or the target is below the smallest network there is.
        """
        schedule = plan(
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            settle_at=self.settle_at,
            warmup=self.warmup,
            patience=self.patience,
            hold=self.hold,
        )
        terms = Terms(
            price=self.price or 0.0,
            target=self.target_params if self.target_macs is None else self.target_macs,
            controlled_share=0.0 if self.target_params is not None else 1.0,
            compute_share=self._alpha,
            layer_share=self.layer_share,
            reference=_resolve(self.reference, structure.cost, self._alpha),
            estimator=Estimator(self.estimator),
        )
        _check_reachable(structure, terms)
        return ComplexitySearch(structure, terms, schedule, generator, device)


def _check_one_goal(*goals: float | None) -> None:
    given = [
        f"{name}={goal}"
        for name, goal in zip(("price", "target_macs", "target_params"), goals, strict=True)
        if goal is not None
    ]
    if len(given) != 1:
        raise UsageError(
            f"{' and '.join(given) or 'neither a price nor a target'} was given, and exactly one "
            "of price, target_macs and target_params is needed: a target finds its own price. "
            "Try price=0.3 or target_macs=0.4."
        )


def _check_reference(reference: Reference | None, compute_share: float) -> None:
    if reference is None or isinstance(reference, Cost):
        return
    numbers = reference if isinstance(reference, tuple) else (reference,)
    if not all(0 < number < math.inf for number in numbers):
        raise UsageError(
            f"reference={reference} is not a complexity. Give positive numbers of MACs and "
            "parameters, such as reference=(41e6, 0.27e6), or the cost of a traced network."
        )
    if not isinstance(reference, tuple) and 0 < compute_share < 1:
        raise UsageError(
            f"reference={reference} is one number, and compute_share={compute_share} mixes MACs "
            "and parameters. Give both, such as reference=(41e6, 0.27e6), or the cost of a "
            "traced network."
        )


def _resolve(reference: Reference | None, own: Cost, compute_share: float) -> tuple[float, float]:
    """Return MACs and parameters of the reference; what is not given is the network's own."""
    if isinstance(reference, tuple):
        return reference
    if reference is None or isinstance(reference, Cost):
        cost = own if reference is None else reference
        return cost.macs.value(), cost.params.value()
    if compute_share == 0:
        return own.macs.value(), reference
    return reference, own.params.value()


def _check_reachable(structure: Structure, terms: Terms) -> None:
    """Refuse a target below the smallest network: as few units as families need, no layer."""
    if terms.target is None:
        return
    everything = structure.everything()
    least_units = [torch.arange(f.num_units) < f.fewest for f in structure.families]
    smallest = Live(
        units=tuple(least_units) if terms.layer_share < 1 else everything.units,
        layers=everything.layers & (terms.layer_share == 0),
    )
    cost = HardCost(mix(structure, terms.controlled_share, terms.reference), structure)
    least = cost(torch.cat([*smallest.units, smallest.layers]))
    if least > terms.target:
        name = "target_params" if terms.controlled_share == 0 else "target_macs"
        raise UsageError(
            f"{name}={terms.target} cannot be reached: with one unit in every family (as many "
            f"experts as a router chooses) and every removable layer gone this network still has "
            f"{least:.3g} of the reference. Choose a larger target, or another layer_share."
        )
