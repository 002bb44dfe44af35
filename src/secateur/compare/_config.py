"""What a comparison's config may say, and how it is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from secateur.compare.recipes import CONTROLS, AnyRecipe, FineTuneConfig, schedules
from secateur.training import trainer


def _without_repetition(values: list[float]) -> list[float]:
    if len(set(values)) < len(values):
        raise ValueError("a value stands in it twice")
    return values


class CompareConfig(trainer.Section):
    """All settings of a comparison.

    Attributes:
        name: Part of the folder's name.
        seeds: Every method is run once with each.
        budgets: Shares of the full network's MACs to end at.
        model: The full network.
        data: The images.
        training: Of a network that is trained from scratch; its epochs are the total of every
            method unless ``fine_tune`` says otherwise.
        fine_tune: How pruning of a trained network shares the epochs.
        methods: Name to recipe; those of `CONTROLS` are added where they are missing.
    """

    name: Annotated[str, AfterValidator(trainer.folder_name)] = "compare"
    seeds: Annotated[
        list[Annotated[int, Field(ge=0, lt=2**63)]],
        Field(min_length=1),
        AfterValidator(_without_repetition),
    ] = Field(default_factory=lambda: [0])
    budgets: Annotated[
        list[Annotated[float, Field(gt=0, lt=1)]],
        Field(min_length=1),
        AfterValidator(_without_repetition),
    ]
    model: trainer.ModelConfig
    data: trainer.DataConfig
    training: trainer.TrainingConfig
    fine_tune: FineTuneConfig = FineTuneConfig()
    methods: dict[str, AnyRecipe] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _goes_together(self) -> CompareConfig:
        if self.model.weights is not None:
            raise ValueError(
                "model.weights is set, but a comparison trains every network from scratch; leave "
                "it out"
            )
        if "seed" in self.training.model_fields_set:
            raise ValueError(
                "training.seed is set, but a comparison has several; write seeds = [0, 1] at its "
                "top instead"
            )
        for name, method in self.methods.items():
            _check_control(name, method)
        schedules(self.training, self.fine_tune)
        return self

    @property
    def all_methods(self) -> dict[str, AnyRecipe]:
        """The controls and the methods of the config, name to recipe, controls first."""
        return CONTROLS | self.methods


def _check_control(name: str, method: AnyRecipe) -> None:
    """Refuse a method that goes by the name of a control and is something else."""
    control = CONTROLS.get(name)
    decisive = ("recipe", "score", "method")
    if control is None:
        return
    for setting in decisive:
        wanted = getattr(control, setting, None)
        if wanted is not None and getattr(method, setting, None) != wanted:
            raise ValueError(
                f"methods.{name} is one of the controls of every comparison, so its {setting} "
                f"must be {wanted!r}; give your method another name"
            )


def read_compare_config(path: Path, overrides: Iterable[str] = ()) -> CompareConfig:
    """Read the config of a comparison.

    Args:
        path: A TOML file.
        overrides: ``section.name=value`` each, written as in the file; quotes may be left out.

    Returns:
        The settings, checked.

    Raises:
        UsageError: The file cannot be read, or a setting is unknown or wrong.
    """
    table = trainer.read_table(path, overrides)
    return trainer.check_settings(
        CompareConfig, table, where=str(path), file="a comparison's config"
    )


def write_compare_config(config: CompareConfig) -> str:
    """Write the settings of a comparison as TOML.

    Args:
        config: The settings.

    Returns:
        Text that `read_compare_config` understands.
    """
    return trainer.write_settings(config, leave_out={"training": {"seed"}})
