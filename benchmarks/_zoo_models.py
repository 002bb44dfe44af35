"""Which published architectures the zoo holds, and how each is built from its configuration."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from _zoo_transformers import transformers_models
from torch import nn
from torchvision.models import detection

Built = tuple[nn.Module, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the zoo.

    Attributes:
        source: ``torchvision``, ``timm`` or ``transformers``.
        family: Models of one family are one row of the table.
        name: Name of the model, unique in its source.
        build: Makes the model with random weights, and its example inputs.
    """

    source: str
    family: str
    name: str
    build: Callable[[], Built]


def torchvision_entries() -> Iterator[Entry]:
    """Yield every classification, segmentation and video model, and every detection backbone."""
    models = torchvision.models
    for kind in (models, models.segmentation, models.video):
        for name in models.list_models(module=kind):
            family = models.get_model_builder(name).__module__.rpartition(".")[2]
            yield Entry("torchvision", family, name, functools.partial(_torchvision, name))
    for name in models.list_models(module=detection):
        build = functools.partial(_detection, name)
        yield Entry("torchvision", "detection backbone", f"{name}.backbone", build)


_BIG = ("vit_h_14", "vit_l_16", "regnet_y_128gf", "regnet_y_32gf", "regnet_x_32gf", "efficientnet")


def _torchvision(name: str) -> Built:
    weightless: dict[str, Any] = {"weights": None}
    if "deeplab" in name or "fcn_" in name or "lraspp" in name:
        weightless["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        model = torchvision.models.get_model(name, **weightless, init_weights=False)
    elif name.startswith("vit_"):
        size = 4 * int(name.rpartition("_")[2])
        model = torchvision.models.get_model(name, **weightless, image_size=size)
        return model, torch.randn(1, 3, size, size)
    else:
        model = torchvision.models.get_model(name, **weightless)
    if name in ("mvit_v1_b", "mvit_v2_s", "s3d"):
        return model, torch.randn(1, 3, 16, 224, 224)
    if "3d" in name or "r2plus1d" in name or "mc3" in name:
        return model, torch.randn(1, 3, 16, 112, 112)
    size = 299 if name == "inception_v3" else 128 if name.startswith(_BIG) else 224
    return model, torch.randn(1, 3, size, size)


def _detection(name: str) -> Built:
    """The backbone of a detector, with its pyramid where it has one."""
    model = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    size = 300 if name.startswith("ssd3") else 320 if "320" in name else 224
    return model.backbone, torch.randn(1, 3, size, size)


def timm_entries(cache: Path) -> Iterator[Entry]:
    """Yield the smallest model of every architecture module.

    Args:
        cache: File in which the names are kept: counting parameters takes minutes.
    """
    key = f"timm {version('timm')}"
    known = json.loads(cache.read_text()) if cache.exists() else {}
    if key not in known:
        known[key] = {module: smallest_of(module) for module in sorted(timm.list_modules())}
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps(known, indent=1))
    for module, name in known[key].items():
        yield Entry("timm", module, name, functools.partial(_timm, name))


def smallest_of(module: str) -> str:
    """Name the model of a timm module with the fewest parameters, counted on the meta device."""
    sizes = {}
    for name in timm.list_models(module=module):
        with torch.device("meta"):
            try:
                model = timm.create_model(name)
            except (RuntimeError, NotImplementedError):  # reads a value while it is built
                continue
        sizes[sum(parameter.numel() for parameter in model.parameters()), name] = name
    if not sizes:
        return timm.list_models(module=module)[0]
    return sizes[min(sizes)]


def _timm(name: str) -> Built:
    model = timm.create_model(name)
    channels, *size = model.default_cfg["input_size"]
    if size[0] > 448 and not model.default_cfg.get("fixed_input_size"):
        size = [224, 224]
    return model, torch.randn(1, channels, *size)


def transformers_entries() -> Iterator[Entry]:
    """Yield what `transformers_models` lists."""
    for name, build, example in transformers_models():
        yield Entry("transformers", name, name, functools.partial(_with_example, build, example))


def _with_example(build: Callable[[], nn.Module], example: Any) -> Built:
    return build(), example() if callable(example) else example


def entries(source: str | None, cache: Path) -> list[Entry]:
    """List the models of one source, or of all."""
    found: list[Entry] = []
    if source in (None, "torchvision"):
        found += torchvision_entries()
    if source in (None, "timm"):
        found += timm_entries(cache)
    if source in (None, "transformers"):
        found += transformers_entries()
    return found
