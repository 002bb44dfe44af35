"""The parts of a run, built from its config: data, network, optimizer, precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from secateur import data, models
from secateur.data import Batches, Dataset
from secateur.errors import UsageError
from secateur.models import ModelShape
from secateur.storage import load
from secateur.training.trainer._config import Config, TrainingConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Parts:
    """What a training loop works with.

    Attributes:
        fabric: Device and precision.
        shape: What the network fits.
        model: The network, on its device.
        optimizer: Of all its parameters.
        train: Shuffled and augmented batches.
        validation: Batches for decisions.
        test: Batches for the report.
        image: One image, ``[1, C, H, W]``, on the device.
    """

    fabric: Fabric
    shape: ModelShape
    model: nn.Module
    optimizer: torch.optim.Optimizer
    train: Batches
    validation: Batches
    test: Batches
    image: Tensor


def build_parts(config: Config) -> Parts:
    """Build the parts of a run; the network draws its weights from torch's global generator.

    Args:
        config: Settings of the run.

    Returns:
        The parts.

    Raises:
        UsageError: A setting does not fit the machine, the data or the network.
        StorageError: The data cannot be read.
    """
    settings = config.training
    fabric = _fabric(settings)
    dataset = load_data(config)
    shape = network_shape(config, dataset)
    model = place(begin_network(config, shape), settings)
    generator = torch.Generator().manual_seed(settings.seed)
    train = Batches(
        dataset,
        "train",
        min(settings.batch_size, len(dataset.train)),
        augment=dataset.augment if settings.augment else None,
        generator=generator,
        drop_last=True,
        device=fabric.device,
        memory_format=_memory_format(settings),
    )
    validation, test = (
        Batches(
            dataset,
            part,
            settings.batch_size,
            device=fabric.device,
            memory_format=_memory_format(settings),
        )
        for part in ("validation", "test")
    )
    return Parts(
        fabric=fabric,
        shape=shape,
        model=model,
        optimizer=build_optimizer(settings, model),
        train=train,
        validation=validation,
        test=test,
        image=next(iter(validation))[0][:1],
    )


def place(model: nn.Module, settings: TrainingConfig) -> nn.Module:
    """Bring a network to where a run has it.

    Args:
        model: The network.
        settings: Of the training: device and layout in memory.

    Returns:
        The same network.

    Raises:
        UsageError: The machine has no such device.
    """
    placed: nn.Module = model.to(_fabric(settings).device).to(
        memory_format=_memory_format(settings)  # type: ignore[call-overload]
    )
    return placed


def load_data(config: Config) -> Dataset:
    """Load the images that a config names.

    Args:
        config: Settings of the run.

    Returns:
        The data set.

    Raises:
        UsageError: The data set is unknown or does not take a setting.
        StorageError: The data cannot be read.
    """
    options = config.data.model_dump(exclude_none=True)
    return data.load(options.pop("name"), options.pop("root", None), **options)


def network_shape(config: Config, dataset: Dataset) -> ModelShape:
    """Say what the network of a run must fit.

    Args:
        config: Settings of the run.
        dataset: Decides about input and output.

    Returns:
        Classes, channels, size and width.
    """
    return ModelShape(
        num_classes=dataset.num_classes,
        in_channels=dataset.in_channels,
        image_size=dataset.image_size,
        width=config.model.width,
    )


def begin_network(config: Config, shape: ModelShape) -> nn.Module:
    """Make the network that a run begins with: fresh, or one that was saved.

    Args:
        config: Settings of the run.
        shape: What the network must fit.

    Returns:
        The network on the CPU; smaller than `build_network` makes it where it was cut before.

    Raises:
        UsageError: The network is unknown or does not fit the images.
        StorageError: The saved network cannot be read, or is another one than the config names.
    """
    if config.model.weights is None:
        return build_network(config, shape)
    return load(lambda: build_network(config, shape), config.model.weights)


def build_network(config: Config, shape: ModelShape) -> nn.Module:
    """Build the network that a config names.

    Args:
        config: Settings of the run.
        shape: What the network must fit.

    Returns:
        The network at its full size, with random weights from torch's global generator, on the CPU.

    Raises:
        UsageError: The network is unknown or does not fit the images.
    """
    return models.build(
        config.model.name,
        num_classes=shape.num_classes,
        in_channels=shape.in_channels,
        image_size=shape.image_size,
        width=shape.width,
    )


def build_optimizer(settings: TrainingConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Make the optimizer; norms and biases, which have one axis, get no weight decay.

    Args:
        settings: Of the training.
        model: The network.

    Returns:
        SGD or AdamW over all parameters.
    """
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum)
    return torch.optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, 0.999))


def count_macs(model: nn.Module, image: Tensor) -> float:
    """Count the multiply-accumulates of one image, in evaluation mode.

    Args:
        model: The network.
        image: ``[1, C, H, W]``, on its device.

    Returns:
        Half of the floating-point operations that torch counts.
    """
    was_training = model.training
    model.eval()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model(image)
    model.train(was_training)
    return counter.get_total_flops() / 2


def _fabric(settings: TrainingConfig) -> Fabric:
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            "training.device is 'cuda', but torch sees no GPU on this machine. "
            "Set it to 'auto' or 'cpu'."
        )
    if device == "cpu" and settings.precision == "16-mixed":
        raise UsageError(
            "training.precision is '16-mixed', which needs a GPU, but the run is on the CPU. "
            "Set it to '32-true' or 'bf16-mixed'."
        )
    # Imported here: it takes as long to import as all of secateur, and most commands do without it.
    from lightning_fabric import Fabric

    return Fabric(accelerator=device, devices=1, precision=settings.precision)


def _memory_format(settings: TrainingConfig) -> torch.memory_format:
    return torch.channels_last if settings.channels_last else torch.contiguous_format
