"""AOFP at work: one move a family, all at once and staggered, until nothing more may go.

After Ding et al., ICML 2019 (arXiv 1905.04748), section 3. Departures, with their reasons, are
listed in docs/methods/aofp.md.

Letters: U units over all families, F families, N units of one family, V evaluations of each
sample, R rows (masks).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.gates import Ablation, Damage
from secateur.methods._move import Move
from secateur.methods._protocol import Draw, State
from secateur.structure import Decision, Live, Structure

MASK_ROWS = 128
"""Most samples of a batch that get masks of their own."""

PAIRS = 2
"""Pairs of halves under which each sample is evaluated."""

CHECK_STEPS = 4
"""Steps in which the damage of a chosen set itself is measured."""

GRAM_STEPS = 32
"""Steps of a half in which inner products are measured, where they can be had."""

MAX_GRAM = 4096
"""Most units of a family whose inner products are kept."""

GIVE_UPS = 3
"""Moves given up in a row after which a family counts as done, where there is no target."""

LONGEST_PAUSE = 8
"""Halves that a family which gives up pauses at most."""

GROWTH = 2**0.5
"""Factor on the tolerance for every half in which the network is too large for its target."""

FALL = 0.75
"""Part of the time until settling in which the MACs should fall to the target."""

LEAST_HALVES = 40
"""Decisions a family should have time for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AOFPTerms:
    """What the user asked for, in the units of this run.

    Attributes:
        tolerance: Damage below which units may go.
        target: Share of the MACs to stop at, or None.
        masks_per_half: Masks behind each decision.
        steps_per_half: Steps behind each decision, or None.
        warmup: First step at which is measured.
        settle: Step at which the network is final.
        min_units: Units that every family keeps.
    """

    tolerance: float
    target: float | None
    masks_per_half: int
    steps_per_half: int | None
    warmup: int
    settle: int
    min_units: int


class AOFPSearch:
    """A `Search` by local damage.

    Args:
        structure: What the model is made of.
        terms: What the user asked for.
        generator: The only source of randomness.
        device: Where the statistics live.

    Attributes:
        settled: True once the network is final.
        step: Optimizer steps observed.
        tolerance: Damage below which units may go now.
        steps_per_half: Steps behind each decision; 0 before the first measurement.
        moves: The state of every family.
    """

    def __init__(
        self,
        structure: Structure,
        terms: AOFPTerms,
        generator: torch.Generator,
        device: torch.device | str,
    ) -> None:
        self.settled = False
        self.step = 0
        self.tolerance = terms.tolerance
        self.steps_per_half = 0
        self.moves = tuple(Move(family.num_units, device) for family in structure.families)
        self._structure, self._terms, self._generator = structure, terms, generator
        self._measured: frozenset[int] = frozenset()
        self._pending: dict[int, Tensor] = {}

    def draw(self) -> Draw | None:
        """Return None: what takes part in the training is never switched off."""
        return None

    def probe(self) -> Draw | None:
        """Return None: no loss is measured."""
        return None

    def observe_probe(self, probe: Draw, rise: float) -> None:
        """Take in nothing."""

    def ablate(self) -> Ablation | None:
        """Return what the next forward pass measures; None for nothing."""
        if self.settled:
            return None
        running = frozenset(self._running())
        if not self.steps_per_half:
            # How many masks a step has, and where inner products can be had, shows at once.
            sampled = frozenset(f for f, move in enumerate(self.moves) if move.num_active > 1)
            return self._ablation(sampled, frozenset())
        exact = frozenset(f for f in running if self.moves[f].is_quadratic)
        due = frozenset(f for f in exact if self._is_gram_due(self.moves[f]))
        self._measured |= running
        sampled = running - exact
        return self._ablation(sampled, due) if sampled or due else None

    def observe_damage(self, ablation: Ablation, damage: Damage) -> None:
        """Take in the damage of masks, on all processes together.

        Args:
            ablation: What was asked.
            damage: What was measured.
        """
        if self.settled:
            return
        if not self.steps_per_half:
            self._plan(ablation, damage)
            return
        for family in ablation.sampled:
            start, stop = self._structure.offsets[family : family + 2]
            for off_RU, change_RF in zip(ablation.off_VRU, damage.change_VRF, strict=True):
                self.moves[family].take_masks(
                    off_RU[:, start:stop], change_RF[:, family], damage.energy_RF[:, family]
                )
        for family in ablation.exact:
            self.moves[family].take_gram(damage.grams[family], damage.gram_energy[family])

    def observe(
        self,
        unit_gradient_U: Tensor,
        layer_gradient_L: Tensor,
        draw: Draw | None,
        batch_size: int,
    ) -> None:
        """Count a step, and decide in every family whose half is over.

        Args:
            unit_gradient_U: Not used.
            layer_gradient_L: Not used.
            draw: Not used.
            batch_size: Not used.
        """
        if self.settled:
            return
        self.step += 1
        measured, self._measured = self._measured, frozenset()
        for family in sorted(measured):
            move = self.moves[family]
            move.steps += 1
            if move.steps >= (CHECK_STEPS if move.is_checking else self.steps_per_half):
                self._conclude(family)
            if self.settled:
                return
        self._stop_or_go_on()

    def decide(self) -> Decision:
        """Return everything that may go now and has not gone yet."""
        return Decision(units=dict(self._pending))

    def should_cut(self, live: Live, pending: Decision) -> bool:
        """Say yes: what may go goes at once, so that every consumer is as it will be."""
        return bool(pending)

    def removed(self, decision: Decision) -> None:
        """Take note that surgery carried out a decision."""
        self._pending = {}

    def record(self) -> dict[str, object]:
        """Return the tolerance, and how many units of every family are being looked at."""
        return {
            "tolerance": self.tolerance,
            "search_space": {
                family.name: int(move.space.sum())
                for family, move in zip(self._structure.families, self.moves, strict=True)
            },
        }

    def state_dict(self) -> State:
        """Return everything a resumed run needs, as tensors and numbers."""
        state: State = {
            f"{family}.{name}": value
            for family, move in enumerate(self.moves)
            for name, value in move.state_dict().items()
        }
        return state | {
            "generator": self._generator.get_state(),
            "step": self.step,
            "settled": int(self.settled),
            "tolerance": self.tolerance,
            "steps_per_half": self.steps_per_half,
        }

    def load_state_dict(self, state: State) -> None:
        """Continue from what `state_dict` returned.

        Args:
            state: Tensors and numbers of a run with the same structure and settings.

        Raises:
            UsageError: The state belongs to another structure.
        """
        for family, move in enumerate(self.moves):
            prefix = f"{family}."
            own = {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
            move.load_state_dict(own)
        self._generator.set_state(torch.as_tensor(state["generator"]).cpu())
        self.step = int(state["step"])
        self.settled = bool(state["settled"])
        self.tolerance = float(state["tolerance"])
        self.steps_per_half = int(state["steps_per_half"])

    def _open(self) -> Iterator[int]:
        """Find the families that can still lose a unit."""
        for family, move in enumerate(self.moves):
            if move.num_active > self._fewest(family):
                yield family

    def _fewest(self, family: int) -> int:
        """Return how many units of a family stay."""
        return max(self._terms.min_units, self._structure.families[family].fewest)

    def _running(self) -> Iterator[int]:
        return (f for f in self._open() if self.step >= self.moves[f].start)

    def _is_gram_due(self, move: Move) -> bool:
        every = max(1, self.steps_per_half // GRAM_STEPS)
        return move.steps % every == 0

    def _ablation(self, sampled: frozenset[int], exact: frozenset[int]) -> Ablation:
        shape = (2 * PAIRS, MASK_ROWS, self._structure.num_units)
        off_VRU = torch.zeros(shape, dtype=torch.bool)
        for family in sorted(sampled):
            start, stop = self._structure.offsets[family : family + 2]
            for pair in off_VRU.split(2):
                first, second = self.moves[family].masks(MASK_ROWS, self._generator)
                pair[0, :, start:stop], pair[1, :, start:stop] = first, second
        return Ablation(off_VRU=off_VRU, sampled=sampled, exact=exact)

    def _plan(self, ablation: Ablation, damage: Damage) -> None:
        """Work out how long a half is, and when each family begins."""
        terms = self._terms
        rows = int((damage.energy_RF > 0).any(dim=1).sum())
        masks = len(ablation.off_VRU) * (rows or MASK_ROWS)
        most = max(1, (terms.settle - terms.warmup) // LEAST_HALVES)
        wanted = math.ceil(terms.masks_per_half / masks)
        self.steps_per_half = terms.steps_per_half or min(wanted, most)
        ordinals = list(self._open())
        for ordinal, family in enumerate(ordinals):
            if (
                family in damage.quadratic
                and self._structure.families[family].num_units <= MAX_GRAM
            ):
                self.moves[family].measure_inner_products()
            stagger = ordinal * (self.steps_per_half // len(ordinals))
            self.moves[family].start = max(terms.warmup, self.step + 1) + stagger

    def _conclude(self, family: int) -> None:
        move = self.moves[family]
        failures = move.failures
        going = move.conclude(self.tolerance)
        going = going[: max(0, move.num_active - self._fewest(family))]
        if len(going):
            self._take_away(family, going)
        elif move.failures > failures:
            pause = min(2 ** (move.failures - 1), LONGEST_PAUSE)
            move.start = self.step + pause * self.steps_per_half

    def _take_away(self, family: int, going: Tensor) -> None:
        """Let units go, and no more of them than the target wants."""
        target = self._terms.target
        if target is not None and self._share(family, len(going)) <= target:
            low, high = 1, len(going)
            while low < high:
                middle = (low + high) // 2
                if self._share(family, middle) <= target:
                    high = middle
                else:
                    low = middle + 1
            going = going[:low]
            self.settled = True
        before = self._pending.get(family, going[:0])
        self._pending[family] = torch.cat([before, going]).sort().values
        self.moves[family].take_away(going)

    def _share(self, family: int = 0, num_gone: int = 0) -> float:
        """Return the MACs with some units of a family less, as a share of the starting ones."""
        counts = torch.tensor([move.num_active for move in self.moves], dtype=torch.int64)
        counts[family] -= num_gone
        macs = self._structure.cost.macs
        return macs.value(counts) / macs.value()

    def _stop_or_go_on(self) -> None:
        """Settle when the time is over or nothing is left to try; keep up with a target."""
        still_open = list(self._open())
        tired = all(self.moves[family].failures >= GIVE_UPS for family in still_open)
        done = not still_open or (tired and self._terms.target is None)
        if done or self.step >= self._terms.settle:
            self.settled = True
        elif self._is_behind():
            self.tolerance *= GROWTH
            for family in still_open:
                self.moves[family].failures = 0
                self.moves[family].start = min(self.moves[family].start, self.step)

    def _is_behind(self) -> bool:
        """Say, once a half, whether the MACs lie above a straight line to the target."""
        terms, since = self._terms, self.step - self._terms.warmup
        if terms.target is None or since <= 0 or not self.steps_per_half:
            return False
        if since % self.steps_per_half:
            return False
        part = min(1.0, since / (FALL * (terms.settle - terms.warmup)))
        return self._share() > 1 - (1 - terms.target) * part
