"""Classification models of torchvision and timm, built by name."""

import difflib
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import nn

from secateur.errors import UsageError
from secateur.models._entry import ModelShape


@dataclass(frozen=True, kw_only=True, slots=True)
class Library:
    """A package that builds classification models by name.

    Attributes:
        package: what is imported.
        names: lists the classification models of the imported package.
        create: builds a model from the imported package, its name and the shape.
    """

    package: str
    names: Callable[[ModuleType], Sequence[str]]
    create: Callable[[ModuleType, str, ModelShape], nn.Module]


def build_from_library(library: Library, name: str, shape: ModelShape) -> nn.Module:
    """Build one classification model of a library with random weights.

    Args:
        library: ``LIBRARIES["torchvision"]`` or ``LIBRARIES["timm"]``.
        name: the model's name within the library.
        shape: the input and output; ``width`` must be 1.0.

    Returns:
        The model.

    Raises:
        UsageError: the library is not installed, does not know the name, refuses the shape, or a
            width is asked for.
    """
    if not math.isclose(shape.width, 1.0):
        raise UsageError(
            f"Model {library.package}/{name} was asked for at width {shape.width}, but only the "
            "reference networks of secateur can be narrowed. "
            "Leave width at 1.0 or choose a reference network."
        )
    module = _import(library, name)
    names = library.names(module)
    if name not in names:
        raise UsageError(
            f"{library.package} has no classification model {name!r}. {nearest(name, names)}"
        )
    try:
        return library.create(module, name, shape)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise UsageError(
            f"{library.package} could not build {name!r} for {shape.in_channels} input channels, "
            f"{shape.num_classes} classes and images of {shape.image_size} pixels: {error}. "
            "Choose data that fits the model, or another model."
        ) from error


def nearest(name: str, names: Sequence[str]) -> str:
    """Say which known names are like a wrong one.

    Args:
        name: what was asked for.
        names: what exists.

    Returns:
        One sentence.
    """
    matches = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if matches:
        return f"Did you mean {' or '.join(repr(match) for match in matches)}?"
    shown = ", ".join(sorted(names)[:12])
    return f"Known names: {shown}{', ...' if len(names) > 12 else ''}."


def _import(library: Library, name: str) -> ModuleType:
    try:
        return importlib.import_module(library.package)
    except ModuleNotFoundError as error:
        if error.name != library.package:
            raise
        raise UsageError(
            f"Model {library.package}/{name} needs {library.package}, which is not installed. "
            "Install it with: pip install '.[vision]' in a clone of secateur."
        ) from error


def _torchvision_names(torchvision: ModuleType) -> Sequence[str]:
    names: Sequence[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def _torchvision_create(torchvision: ModuleType, name: str, shape: ModelShape) -> nn.Module:
    options: dict[str, Any] = {"num_classes": shape.num_classes}
    for prefix, extra in _TORCHVISION_OPTIONS.items():
        if name.startswith(prefix):
            options |= extra(shape)
    model: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    if shape.in_channels != 3:
        _change_input_channels_(model, shape.in_channels)
    return model


# Token grids are fixed at construction; the second output of the Inception nets is for training
# recipes of their own, and without init_weights they warn.
_TORCHVISION_OPTIONS: dict[str, Callable[[ModelShape], dict[str, Any]]] = {
    "vit_": lambda shape: {"image_size": shape.image_size},
    "maxvit": lambda shape: {"input_size": (shape.image_size, shape.image_size)},
    "googlenet": lambda _: {"aux_logits": False, "init_weights": True},
    "inception_v3": lambda _: {"aux_logits": False, "init_weights": True},
}


def _change_input_channels_(model: nn.Module, in_channels: int) -> None:
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    assert first.groups == 1
    first.in_channels = in_channels
    out_channels, _, *kernel = first.weight.shape
    first.weight = nn.Parameter(first.weight.new_empty(out_channels, in_channels, *kernel))
    first.reset_parameters()


def _timm_names(timm: ModuleType) -> Sequence[str]:
    names: Sequence[str] = timm.list_models()
    return names


def _timm_create(timm: ModuleType, name: str, shape: ModelShape) -> nn.Module:
    options: dict[str, Any] = {"num_classes": shape.num_classes, "in_chans": shape.in_channels}
    published = timm.get_pretrained_cfg(name)
    if published is not None and published.fixed_input_size:
        options["img_size"] = shape.image_size
    model: nn.Module = timm.create_model(name, pretrained=False, **options)
    return model


LIBRARIES = {
    library.package: library
    for library in (
        Library(package="torchvision", names=_torchvision_names, create=_torchvision_create),
        Library(package="timm", names=_timm_names, create=_timm_create),
    )
}
