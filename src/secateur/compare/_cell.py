"""One cell of a comparison: a method, a budget and a seed, with a key that its settings decide."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from pydantic import BaseModel

from secateur.compare._config import CompareConfig
from secateur.compare.recipes import AnyRecipe, Schedules, schedules
from secateur.training import trainer

VERSION = 1
"""Of what a cell is; a change makes every cell a new one."""

KEY_LENGTH = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One training, or chain of trainings, with everything that decides about its result.

    Attributes:
        method: Name of the method.
        recipe: What it does.
        budget: Share of the MACs to end at; None for a recipe without budget.
        base: Settings of the dense training with this cell's seed.
        schedules: The trainings there are, with this cell's seed.
    """

    method: str
    recipe: AnyRecipe
    budget: float | None
    base: trainer.Config
    schedules: Schedules

    @property
    def seed(self) -> int:
        """Start of every random generator."""
        return self.base.training.seed

    @property
    def key(self) -> str:
        """Hash of all settings that this cell depends on, and of no others."""
        trainings = [self.schedules.scratch]
        if self.recipe.fine_tunes:
            trainings = [self.schedules.pretraining, self.schedules.fine_tuning]
        settings = [self.base.model, self.base.data, *trainings, self.recipe]
        return _hash([self.budget, *map(_plain, settings)])

    @property
    def pretrained_key(self) -> str:
        """Hash of all settings that the pre-trained network depends on; cells share it."""
        return _hash(
            [_plain(part) for part in (self.base.model, self.base.data, self.schedules.pretraining)]
        )

    @property
    def epochs(self) -> int:
        """Epochs of all its trainings together, pre-training included."""
        if self.recipe.fine_tunes:
            return self.schedules.pretraining.epochs + self.schedules.fine_tuning.epochs
        return self.schedules.scratch.epochs

    @property
    def title(self) -> str:
        """What a person calls it."""
        budget = "" if self.budget is None else f" at {100 * self.budget:g} %"
        return f"{self.method}{budget}, seed {self.seed}"


def cells_of(config: CompareConfig) -> list[Cell]:
    """List the cells of a comparison in the order in which they are worked out.

    Args:
        config: Its settings.

    Returns:
        Seed by seed, the dense network first.
    """
    cells = []
    for seed in config.seeds:
        training = config.training.model_copy(update={"seed": seed})
        base = trainer.Config(
            name=config.name, model=config.model, data=config.data, training=training
        )
        for method, recipe in config.all_methods.items():
            cells += [
                Cell(
                    method=method,
                    recipe=recipe,
                    budget=budget,
                    base=base,
                    schedules=schedules(training, config.fine_tune),
                )
                for budget in (config.budgets if recipe.has_budget else [None])
            ]
    return cells


def _plain(settings: BaseModel) -> object:
    return settings.model_dump(mode="json")


def _hash(parts: list[object]) -> str:
    text = json.dumps([VERSION, *parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]
