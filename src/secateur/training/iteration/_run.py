"""One run over levels: what happens at a level, in which order, and what a stopped run needs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch

from secateur.masks import Masks
from secateur.methods.mask_rules import MaskRule
from secateur.methods.stoppers import Stopper
from secateur.training._processes import communication_device, is_distributed
from secateur.training.iteration._checkpoint import Checkpoint
from secateur.training.iteration._records import Chunk, Level
from secateur.training.iteration._rewind import Rewind
from secateur.training.iteration._snapshot import (
    Trained,
    copy_model,
    copy_training,
    restore_model_,
    restore_training_,
)
from secateur.training.iteration._stopwatch import Stopwatch

Train = Callable[[Chunk], object]


class Run:
    """What the levels of one call of `iterate` share; the arguments are those of `iterate`.

    Args:
        trained: Model, optimizer, and what goes with them.
        masks: Their masks.
        train: Trains a chunk.
        rule: Chooses masks.
        rewind: Sets the start of a level.
        stopper: Ends levels.
        evaluate: Called at the end of a level, or None.
        seed: Seed of the rule.

    Attributes:
        device: Where the weights lie.
        records: The levels that are done.
        warm_up_seconds: What the warm-up took.
    """

    def __init__(
        self,
        trained: Trained,
        masks: Masks,
        train: Train,
        *,
        rule: MaskRule,
        rewind: Rewind,
        stopper: Stopper,
        evaluate: Callable[[], float] | None,
        seed: int,
    ) -> None:
        self._trained = trained
        self._masks = masks
        self._train = train
        self._rule = rule
        self._rewind = rewind
        self._stopper = stopper
        self._evaluate = evaluate
        self._generator = torch.Generator().manual_seed(seed)
        self.device = next(iter(masks.weights.values())).device
        self._watch = Stopwatch(self.device)
        self._total = 0
        self._start: dict[str, Any] = {}
        self.records: list[Level] = []
        self.warm_up_seconds = 0.0

    def begin(self, warm_up: int, saved: Checkpoint | None) -> None:
        """Train to the rewind point and remember it, or go on from a checkpoint.

        Args:
            warm_up: Chunks before the rewind point.
            saved: Where a stopped run may have left its state; None for nowhere.

        Raises:
            UsageError: The checkpoint is of another run.
            StorageError: The checkpoint is damaged.
        """
        state = None if saved is None else saved.take_up_()
        if state is not None:
            self._resume(state)
            return
        for number in range(warm_up):
            self._chunk(level=0, number=number, budget=warm_up, warm_up=True)
        self.warm_up_seconds = self._watch.take("train")
        self._rewind.remember(self._trained)
        if saved is not None:
            self._start = self._copy()

    def level(self, budget: int, stopper: Stopper) -> Level:
        """Mask, rewind and train.

        Args:
            budget: Chunks the level may take.
            stopper: Ends it before.

        Returns:
            What happened; it is in ``records``, too.
        """
        number = len(self.records)
        with self._watch.measure("mask"):
            if number > 0:
                self._mask_and_rewind()
        with self._watch.measure("stopper"):
            stopper.level_begins(number)
        readings: list[Mapping[str, float]] = []
        stop = False
        while not stop and len(readings) < budget:
            self._chunk(level=number, number=len(readings), budget=budget, warm_up=False)
            with self._watch.measure("stopper"):
                stop = self._agreed(stopper.should_stop(len(readings) + 1))
            readings.append(dict(stopper.readings))
        with self._watch.measure("stopper"):
            stopper.level_ends(number)
        self.records.append(self._record(budget, stopper.because if stop else "", readings))
        return self.records[-1]

    def state(self) -> dict[str, Any]:
        """Return everything that going on after the last level needs."""
        return {
            "start": self._start,
            "now": self._copy(),
            "masks": self._masks.state_dict(),
            "stopper": self._stopper.state_dict(),
            "rule_generator": self._generator.get_state(),
            "total": self._total,
            "warm_up_seconds": self.warm_up_seconds,
            "records": [dataclasses.asdict(record) for record in self.records],
        }

    def _resume(self, state: dict[str, Any]) -> None:
        self._start = state["start"]
        self._restore_(self._start)
        self._rewind.remember(self._trained)
        self._restore_(state["now"])
        self._masks.load_state_dict(state["masks"])
        self._stopper.load_state_dict(state["stopper"])
        self._generator.set_state(state["rule_generator"])
        self._total = state["total"]
        self.warm_up_seconds = state["warm_up_seconds"]
        self.records = [Level(**record) for record in state["records"]]

    def _copy(self) -> dict[str, Any]:
        return {"model": copy_model(self._trained), "training": copy_training(self._trained)}

    def _restore_(self, state: dict[str, Any]) -> None:
        restore_model_(self._trained, state["model"])
        restore_training_(self._trained, state["training"])

    def _mask_and_rewind(self) -> None:
        kept = self._rule.next_masks(self._masks.weights, self._masks.kept, self._generator)
        self._rewind.restore_(self._trained)
        self._masks.set_(kept)

    def _chunk(self, *, level: int, number: int, budget: int, warm_up: bool) -> None:
        chunk = Chunk(level=level, number=number, budget=budget, total=self._total, warm_up=warm_up)
        with self._watch.measure("train"):
            self._train(chunk)
        self._total += 1

    def _record(self, budget: int, because: str, readings: list[Mapping[str, float]]) -> Level:
        with self._watch.measure("evaluate"):
            evaluation = None if self._evaluate is None else float(self._evaluate())
        return Level(
            number=len(self.records),
            num_kept=self._masks.num_kept,
            kept_share=self._masks.kept_share,
            emptied=self._masks.emptied,
            chunks=len(readings),
            budget=budget,
            because=because,
            readings=tuple(readings),
            train_seconds=self._watch.take("train"),
            measure_seconds=self._watch.take("stopper"),
            mask_seconds=self._watch.take("mask"),
            evaluation=evaluation,
            evaluate_seconds=self._watch.take("evaluate"),
        )

    def _agreed(self, stop: bool) -> bool:
        """Let all processes do what the first one says: rounding may differ between them."""
        if not is_distributed():
            return stop
        said = torch.tensor([stop], dtype=torch.uint8, device=communication_device())
        torch.distributed.broadcast(said, src=0)
        return bool(said.item())
