"""What a recipe is given, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from secateur.compare.recipes._bill import Bill, Item, What
from secateur.compare.recipes._ground import Ground
from secateur.compare.recipes._schedule import Schedules
from secateur.training import trainer

OnRun = Callable[[str, trainer.Progress], None]
"""Called with what is being done, such as ``"fine-tuning"``, and how far that is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A finished network.

    Attributes:
        outcome: Of the training that ended with it.
        bill: All it cost.
    """

    outcome: trainer.Outcome
    bill: Bill


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One cell to be worked out.

    Attributes:
        base: Settings of the dense training of this seed.
        schedules: The trainings there are.
        budget: Share of the MACs of the full network to end at; None for a recipe without one.
        ground: Data and full network.
        folder: Where the runs of this cell go.
        pretrained: Where the run goes that all cells of this seed begin with.
        on_run: Called with the progress.
    """

    base: trainer.Config
    schedules: Schedules
    budget: float | None
    ground: Ground
    folder: Path
    pretrained: Path
    on_run: OnRun

    @property
    def target(self) -> float:
        """The budget of a recipe that has one."""
        assert self.budget is not None
        return self.budget

    def train(self, what: What, config: trainer.Config, folder: Path | None = None) -> Made:
        """Carry a training through, or read what it came to if it has ended before.

        Args:
            what: What stands on the bill.
            config: Settings of the run.
            folder: Where it goes; None is a folder of this cell alone.

        Returns:
            The network with a bill of this training only.
        """
        run = folder or self.folder / what
        outcome = _carried_through(run, config, lambda progress: self.on_run(what, progress))
        seconds = outcome.train_seconds
        return Made(
            outcome=outcome,
            bill=Bill((Item(what=what, macs=outcome.training_macs, seconds=seconds),)),
        )

    def pretrain(self) -> Made:
        """Train the full network that recipes prune; it is trained once a seed.

        Returns:
            The network and what it cost, however many cells it serves.
        """
        config = self.base.model_copy(update={"training": self.schedules.pretraining})
        return self.train("pre-training", config, self.pretrained)


class Recipe(Protocol):
    """A way to get a network of a given size; a class of settings with a method.

    Attributes:
        recipe: Its name.
        has_budget: Whether it aims at a share of the MACs.
        fine_tunes: Whether it prunes a network trained before, and trains it further.
    """

    recipe: str
    has_budget: ClassVar[bool]
    fine_tunes: ClassVar[bool]

    def carry_out(self, job: Job) -> Made:
        """Make the network of one cell.

        Args:
            job: The cell.

        Returns:
            The network and its bill.
        """
        ...


def _carried_through(
    run: Path, config: trainer.Config, on_progress: trainer.OnProgress
) -> trainer.Outcome:
    if trainer.is_finished(run):
        return trainer.read_outcome(run)
    if not (run / "config.toml").exists():
        trainer.create_run(config, run)
    return trainer.train(run, on_progress=on_progress)
