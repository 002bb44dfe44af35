"""One run of complexity-aware training: statistics in, gates and decisions out.

Everything a step does is tensor arithmetic without a wait for the device; prices, decisions and
probes look at numbers every `Schedule.interval` steps.

Letters: U units, L layers, S structures (units, then layers).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.methods._budget import Ascent, opening_price, target_share
from secateur.methods._dynamics import hold, move, probability, relative_worth
from secateur.methods._estimators import Estimator
from secateur.methods._nesting import Nesting
from secateur.methods._pricing import HardCost, Pricing, mix
from secateur.methods._prober import Prober
from secateur.methods._protocol import Draw, State, tensor_of
from secateur.methods._rounding import keepers, meet, worst_first
from secateur.methods._schedule import Schedule
from secateur.methods._statistics import Statistics
from secateur.methods._summary import as_decision, calibration, record, worth_by_name
from secateur.structure import Decision, Live, Structure

# Share of the present MACs that has to go for a removal between two ends of epochs.
PAYING_SHARE = 0.1

_TENSORS = ("level_S", "held_S", "price_S", "keeper_S", "gone_S", "condemned_S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the user asked for, in the units of this run.

    Attributes:
        price: nu; unused with a target.
        target: Complexity at the end, or None.
        controlled_share: What the target counts: 1 MACs, 0 parameters.
        compute_share: alpha.
        layer_share: beta.
        reference: MACs and parameters that count as C = 1.
        estimator: How worth is estimated between measurements.
    """

    price: float
    target: float | None
    controlled_share: float
    compute_share: float
    layer_share: float
    reference: tuple[float, float]
    estimator: Estimator


class ComplexitySearch:
    """A `Search` that keeps what lowers the loss by more than its price.

    Args:
        structure: What the model is made of.
        terms: What the user asked for.
        schedule: When things happen.
        generator: The only source of randomness.
        device: Where the statistics live.

    Attributes:
        settled: True once the network is final.
        step: Optimizer steps observed.
        schedule: When things happen.
    """

    def __init__(
        self,
        structure: Structure,
        terms: Terms,
        schedule: Schedule,
        generator: torch.Generator,
        device: torch.device | str,
    ) -> None:
        self.settled = False
        self.step = 0
        self.schedule = schedule
        self._structure, self._terms, self._generator = structure, terms, generator
        self._nesting = Nesting(structure, device)
        complexity = mix(structure, terms.compute_share, terms.reference)
        self._pricing = Pricing(complexity, self._nesting, terms.layer_share, device)
        controlled = mix(structure, terms.controlled_share, terms.reference)
        self._controlled = Pricing(controlled, self._nesting, terms.layer_share, device)
        self._hard_cost = HardCost(controlled, structure)
        self._statistics = Statistics(structure, self._nesting.family_U, terms.estimator, device)
        self._prober = Prober(
            structure,
            self._nesting,
            self._statistics,
            schedule,
            units=terms.layer_share < 1 and terms.estimator is Estimator.CURVATURE_CORRECTED,
            layers=terms.layer_share > 0,
        )
        size = structure.num_units + structure.num_layers
        self._on_S = torch.ones(size, dtype=torch.bool, device=device)
        self._gone_S = torch.zeros_like(self._on_S)
        self._condemned_S = torch.zeros_like(self._on_S)
        self._keeper_S = torch.zeros_like(self._on_S)
        self._fewest_F = torch.tensor([f.fewest for f in structure.families], device=device)
        self._level_S = torch.full_like(self._on_S, schedule.patience, dtype=torch.float64)
        self._price_S = torch.zeros_like(self._level_S)
        self._unit_price_S = torch.zeros_like(self._level_S)
        self._held_S = torch.zeros_like(self._on_S, dtype=torch.int64)
        self._moving = False
        self._decision = Decision()
        self._saving = (self._decision, False)
        self._ascent = Ascent(schedule.patience)
        self._first_share = self._hard_cost(self._on_S.cpu())
        if terms.target is None:
            self._ascent.price = terms.price
            self._idle = terms.price == 0
        else:
            self._idle = terms.target >= self._first_share
        if not self._idle:
            self._refresh()

    @property
    def price(self) -> float:
        """nu, in nats per 100 % of the reference."""
        return self._ascent.price

    def draw(self) -> Draw | None:
        """Draw the gates of the next step; None while every probability is 1."""
        if self._idle or self.settled:
            return None
        self._statistics.begin_step()
        chance_S = self._chance()
        self._prober.plan(self.step, chance_S, self._price_S, self._alive())
        if not self._moving:
            self._on_S = torch.ones_like(self._on_S)
            return None
        open_L = self._prober.needed_open()
        if open_L is not None:
            num_units = self._structure.num_units
            closed_L = self._condemned_S[num_units:] | ~open_L
            chance_S[num_units:] = torch.where(closed_L, chance_S[num_units:], 1.0)
        chance_S = torch.where(self._gone_S, 1.0, chance_S)
        device = self._generator.device
        random_S = torch.rand(len(chance_S), generator=self._generator, device=device)
        self._on_S = random_S.to(chance_S.device) < chance_S
        return self._as_draw(self._on_S)

    def observe(
        self,
        unit_gradient_U: Tensor,
        layer_gradient_L: Tensor,
        draw: Draw | None,
        batch_size: int,
    ) -> None:
        """Take in the gate gradients of a step and move every probability.

        Args:
            unit_gradient_U: Derivative of the loss by every unit's gate, ``[U]``.
            layer_gradient_L: Derivative of the loss by every layer's gate, ``[L]``.
            draw: The gates under which it was measured; None means all on.
            batch_size: Number of samples over which the loss was averaged.
        """
        self.step += 1
        if self.settled:
            return
        if not self._idle:
            gradient_S = torch.cat([unit_gradient_U, layer_gradient_L]).to(self._level_S)
            self._take_in(gradient_S, draw, batch_size)
        if self.step >= self.schedule.settle:
            self._settle()

    def probe(self) -> Draw | None:
        """Return what the extra forward of this step switches off on top of the draw."""
        if self._idle or self.settled:
            return None
        open_U = (self._on_S & self._alive())[: self._structure.num_units]
        on_S = self._prober.probe(open_U, self._generator)
        return None if on_S is None else self._as_draw(on_S)

    def observe_probe(self, probe: Draw, rise: float) -> None:
        """Take in a measured rise of the loss, before or after `observe` of the same step.

        Args:
            probe: What was switched off.
            rise: Loss with it off minus loss with it on, in nats.
        """
        self._prober.answer(probe.units_U, rise)

    def decide(self) -> Decision:
        """Return everything that may go now and has not gone yet."""
        return self._decision

    def should_cut(self, live: Live, pending: Decision) -> bool:
        """Say whether removing pays: at the end, at ends of epochs, and for a tenth of the MACs.

        Args:
            live: What is left in the model.
            pending: What may go.

        Returns:
            True where surgery should happen now.
        """
        if not pending:
            return False
        if self.settled or self.step % self.schedule.epoch == 0:
            return True
        if self._saving[0] is not pending:
            macs, after = self._structure.cost.macs, live.without(pending)
            now = macs.value(live.counts, live.layers)
            saved = now - macs.value(after.counts, after.layers)
            self._saving = (pending, saved > PAYING_SHARE * now)
        return self._saving[1]

    def removed(self, decision: Decision) -> None:
        """Take note that surgery carried out a decision.

        Args:
            decision: What is gone from the model.
        """
        num_units, device = self._structure.num_units, self._gone_S.device
        for family, units in decision.units.items():
            self._gone_S[self._structure.offsets[family] + units.to(device)] = True
        for layer in decision.layers:
            self._gone_S[num_units + layer] = True
        self._gone_S |= self._nesting.covered(self._gone_S[num_units:])
        self._condemn(self._condemned_S & ~self._gone_S)
        if not self._idle:
            self._refresh()

    def record(self) -> dict[str, object]:
        """Return price, expected shares of the starting cost, and summaries of theta and phi."""
        return record(self._structure, self.price, self._chance(), ~self._gone_S)

    def calibration(self) -> dict[str, object]:
        """Return the measured factor of every family and the measured worth of every layer."""
        return calibration(self._structure, self._statistics.measured)

    def worth(self, decision: Decision) -> dict[str, float]:
        """Return the relative worth of what a decision takes, the mean where it takes units.

        Args:
            decision: Units and layers.

        Returns:
            Family or layer name to worth in units of the price.
        """
        return worth_by_name(self._structure, self._worth().cpu(), decision)

    def state_dict(self) -> State:
        """Return everything a resumed run needs, as tensors and numbers."""
        state: State = {name: getattr(self, f"_{name}").clone() for name in _TENSORS}
        state |= self._statistics.state_dict()
        state |= self._ascent.state_dict()
        state["generator"] = self._generator.get_state()
        state |= {"step": self.step, "settled": self.settled, "moving": self._moving}
        return state

    def load_state_dict(self, state: State) -> None:
        """Continue from what `state_dict` returned.

        Args:
            state: Tensors and numbers of a run with the same structure and settings.

        Raises:
            UsageError: The state belongs to another structure.
        """
        for name in _TENSORS:
            setattr(self, f"_{name}", tensor_of(state, name, getattr(self, f"_{name}")))
        self._statistics.load_state_dict(state)
        self._ascent.load_state_dict(state)
        self._generator.set_state(torch.as_tensor(state["generator"]).cpu())
        self.step = int(state["step"])
        self.settled = bool(state["settled"])
        self._moving = bool(state["moving"])
        self._condemn(self._condemned_S)

    def _take_in(self, gradient_S: Tensor, draw: Draw | None, batch_size: int) -> None:
        when = self.schedule
        seen_S = self._alive() & gradient_S.isfinite()
        on_S = torch.ones_like(seen_S)
        if draw is not None:
            on_S = torch.cat([draw.units_U, draw.layers_L])
            seen_S &= self._nesting.seen(draw.layers_L)
        self._statistics.take_in(gradient_S, on_S, seen_S, batch_size)
        if self.step > when.warmup:
            worth_S = self._worth()
            self._level_S = move(self._level_S, worth_S, seen_S, when.patience)
            self._held_S = hold(self._held_S, self._level_S, worth_S, seen_S)
        if self.step % when.interval == 0 or self.step >= when.settle:
            self._refresh()
            self._steer()
            self._condemn_idle()

    def _refresh(self) -> None:
        """Update what changes slowly: factors, keepers, prices, whether anything is below 1."""
        alive_S = self._alive()
        self._statistics.calibrate()
        # Equal levels are common (all at the top), so worth decides between them.
        rank_S = self._level_S + 1e-3 * self._worth().clamp(-1, 3)
        self._keeper_S[: self._structure.num_units] = keepers(
            rank_S[: self._structure.num_units],
            alive_S[: self._structure.num_units],
            self._nesting.family_U,
            self._fewest_F,
        )
        chance_S = self._chance()
        self._unit_price_S = self._pricing.price(chance_S, alive_S)
        self._price_S = self.price * self._unit_price_S
        self._moving = bool((~self._gone_S & (chance_S < 1)).any())

    def _steer(self) -> None:
        """Move the price towards the one at which the network ends at the target."""
        target, when = self._terms.target, self.schedule
        if target is None or self.step < when.warmup:
            return
        if self.price == 0:
            self._ascent.open(
                opening_price(
                    self._statistics.rise(), self._unit_price_S, target / self._first_share
                )
            )
        else:
            wanted = target_share(
                self.step,
                first=self._first_share,
                last=target,
                warmup=when.warmup,
                settle=when.settle,
            )
            gap = float(self._controlled.share(self._chance())) - wanted
            self._ascent.update(gap, when.interval)
        self._price_S = self.price * self._unit_price_S

    def _condemn_idle(self) -> None:
        """Fix at 0 what has met the condition for removal long enough."""
        candidate_S = self._alive() & ~self._keeper_S & (self._held_S >= self.schedule.hold)
        if bool(candidate_S.any()):
            self._take_away(candidate_S)

    def _settle(self) -> None:
        """Round every probability; with a target, so that the cost is the target."""
        self.settled = True
        if self._idle:
            return
        candidate_S = self._alive() & ~self._keeper_S & (self._unit_price_S > 0)
        if self._terms.target is None:
            candidate_S &= self._chance() <= 0.5
        self._take_away(candidate_S)
        self._level_S = torch.where(self._alive(), float(self.schedule.patience), 0.0).double()

    def _take_away(self, candidate_S: Tensor) -> None:
        """Condemn candidates; with a target never so many that the network ends below it."""
        if self._terms.target is not None:
            left_S = self._alive().cpu()
            worth_S = self._statistics.rise() / self._unit_price_S
            order = worst_first(candidate_S.cpu(), self._level_S.cpu(), worth_S.cpu())
            kept_S = meet(order, left_S, self._hard_cost, self._terms.target)
            candidate_S = (left_S & ~kept_S).to(candidate_S.device)
        self._condemn(self._condemned_S | candidate_S)

    def _condemn(self, condemned_S: Tensor) -> None:
        self._condemned_S = condemned_S
        away_S = condemned_S | self._gone_S
        self._level_S = torch.where(away_S, 0.0, self._level_S)
        self._decision = as_decision(self._structure, self._nesting, condemned_S, self._gone_S)
        self._moving = self._moving or bool(condemned_S.any())

    def _alive(self) -> Tensor:
        return ~(self._gone_S | self._condemned_S)

    def _chance(self) -> Tensor:
        """Return theta and phi; 1 for a unit a family keeps, 0 for what is gone or about to go."""
        chance_S = probability(self._level_S, self.schedule.patience)
        chance_S = torch.where(self._keeper_S, 1.0, chance_S)
        return torch.where(self._alive(), chance_S, 0.0)

    def _worth(self) -> Tensor:
        return relative_worth(self._statistics.rise(), self._price_S)

    def _as_draw(self, on_S: Tensor) -> Draw:
        num_units = self._structure.num_units
        return Draw(units_U=on_S[:num_units], layers_L=on_S[num_units:])
