"""What a config file may say: the settings of a run, checked when they are read."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


def folder_name(name: str) -> str:
    """Return a name that can be a folder's, or refuse it.

    Args:
        name: What the user wrote.

    Returns:
        The same.

    Raises:
        ValueError: It holds a separator, or is empty.
    """
    if not name or name in {".", ".."} or PurePath(name).name != name or "\\" in name:
        raise ValueError("it becomes part of a folder's name, so it must not contain / or \\")
    return name


class Section(BaseModel):
    """Settings that no one misspells unnoticed: unknown names and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ModelConfig(Section):
    """The section ``[model]``.

    Attributes:
        name: A reference network, ``torchvision/NAME`` or ``timm/NAME``.
        width: Factor on every hidden width of a reference network.
        weights: Folder of a finished run, or one that `secateur.save` wrote: the run begins with
            that network, as small as it is, instead of random weights.
    """

    name: str
    width: Positive = 1.0
    weights: str | None = None


class DataConfig(Section):
    """The section ``[data]``; what is left out is as the data set has it.

    Attributes:
        name: A data set that `secateur.data` knows.
        root: Folder or file that holds the data.
        size: Average-pool or resize images to so many pixels.
        limit: Number of training images.
        validation: Number of images cut from the training images for validation.
        validation_share: The same as a share, for folders of images.
        download: Whether a missing data set may be downloaded.
    """

    name: str
    root: str | None = None
    size: Count | None = None
    limit: Count | None = None
    validation: Count | None = None
    validation_share: Share | None = None
    download: bool | None = None


class TrainingConfig(Section):
    """The section ``[training]``.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images per optimizer step.
        optimizer: ``sgd`` or ``adamw``.
        lr: Learning rate after the warm-up; a cosine then takes it to 0.
        momentum: Momentum of SGD; the first beta of AdamW.
        weight_decay: As the optimizer has it; norms and biases get none.
        warmup_epochs: Epochs over which the learning rate rises from 0.
        label_smoothing: Share of the target that is spread over all classes.
        augment: Whether images are shifted and mirrored as is usual for the data set.
        precision: As lightning-fabric calls them.
        channels_last: Whether images lie in memory with their channels last.
        device: ``auto`` takes a GPU where there is one.
        threads: CPU threads; torch's own choice if left out.
        seed: Start of every random generator.
    """

    epochs: Count
    batch_size: Count = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Positive = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 5e-4
    warmup_epochs: NotNegative = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augment: bool = True
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    channels_last: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Count | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="after")
    def _warmup_ends(self) -> TrainingConfig:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs is {self.warmup_epochs} but there are only {self.epochs} epochs"
            )
        return self


class SearchSettings(Section):
    """How complexity-aware structure discovery works, apart from its goal.

    Attributes:
        method: The method that decides what goes.
        compute_share: 1 counts MACs only, 0 parameters only.
        layer_share: 0 removes units only, 1 layers only.
        reference: ``[MACs, parameters]`` that count as 100 %; those of the starting network if left
            out.
        patience: Optimizer steps in which a useless structure disappears.
        settle_at: Share of the run after which the structure is final.
    """

    method: Literal["complexity-aware"] = "complexity-aware"
    compute_share: Share | None = None
    layer_share: Share | None = None
    reference: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = None
    patience: Count | None = None
    settle_at: Annotated[float, Field(gt=0, le=1)] | None = None


class SearchConfig(SearchSettings):
    """The section ``[search]``: structure discovery by worth against price.

    Attributes:
        price: Nats of loss that 100 % of the complexity is worth.
        target_macs: Share of the MACs to end at, instead of a price.
        target_params: Share of the parameters to end at, instead of a price.
    """

    price: NotNegative | None = None
    target_macs: Annotated[float, Field(gt=0, lt=1)] | None = None
    target_params: Annotated[float, Field(gt=0, lt=1)] | None = None

    @model_validator(mode="after")
    def _one_goal(self) -> SearchConfig:
        goals = ("price", "target_macs", "target_params")
        given = [name for name in goals if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"it needs exactly one of {', '.join(goals)}, and has "
                f"{' and '.join(given) if given else 'none'}"
            )
        return self


class AOFPSettings(Section):
    """How AOFP works, apart from its goal; see `secateur.AOFP`.

    Attributes:
        method: The method that decides what goes.
        tolerance: Relative damage below which units may go.
        masks_per_half: Random halves that each decision looks at.
        steps_per_half: Optimizer steps between decisions.
        warmup: Steps before anything is measured.
        min_units: Units that every family keeps.
        settle_at: Share of the run after which the structure is final.
    """

    method: Literal["aofp"]
    tolerance: Positive | None = None
    masks_per_half: Annotated[int, Field(ge=2)] | None = None
    steps_per_half: Count | None = None
    warmup: Annotated[int, Field(ge=0)] | None = None
    min_units: Count | None = None
    settle_at: Annotated[float, Field(gt=0, le=1)] | None = None


class AOFPConfig(AOFPSettings):
    """The section ``[search]``: structure discovery by damage at the next layers.

    Attributes:
        target_macs: Share of the MACs to stop at; None stops where nothing is below the tolerance.
    """

    target_macs: Annotated[float, Field(gt=0, lt=1)] | None = None


class ResRepSettings(Section):
    """How ResRep works, apart from its goal; see `secateur.ResRep`.

    Attributes:
        method: The method that decides what goes.
        penalty: Fall of a row's norm in a step, divided by the learning rate.
        momentum: Momentum of the compactors.
        warmup: Steps before rows are chosen.
        interval: Steps from one choice to the next.
        min_units: Units that every family keeps.
        settle_at: Share of the run after which the structure is final.
    """

    method: Literal["resrep"]
    penalty: NotNegative | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    warmup: Annotated[int, Field(ge=0)] | None = None
    interval: Count | None = None
    min_units: Count | None = None
    settle_at: Annotated[float, Field(gt=0, le=1)] | None = None


class ResRepConfig(ResRepSettings):
    """The section ``[search]``: structure discovery by compactors that forget.

    Attributes:
        target_macs: Share of the MACs to end at.
    """

    target_macs: Annotated[float, Field(gt=0, lt=1)]


def _method(search: object) -> str:
    name = search.get("method") if isinstance(search, dict) else getattr(search, "method", None)
    return name if isinstance(name, str) else "complexity-aware"


AnySearchConfig = Annotated[
    Annotated[SearchConfig, Tag("complexity-aware")]
    | Annotated[AOFPConfig, Tag("aofp")]
    | Annotated[ResRepConfig, Tag("resrep")],
    Discriminator(_method),
]
"""The section ``[search]``; its setting ``method`` says which."""


class Config(Section):
    """All settings of a run.

    Attributes:
        name: Name of the run, part of its folder's name.
        model: The network.
        data: The images.
        training: The loop.
        search: Structure discovery; None trains the network as it is.
    """

    name: Annotated[str, AfterValidator(folder_name)] = "run"
    model: ModelConfig
    data: DataConfig
    training: TrainingConfig
    search: AnySearchConfig | None = None
