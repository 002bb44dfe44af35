"""Torch-Pruning on the same models: construction and one step, by its defaults."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
import torch_pruning
from _zoo_measure import SHARE, Record
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only


def measure_peer(build: Callable[[], tuple[nn.Module, Any]], record: Record) -> None:
    """Fill a record with seconds, and whether the smaller model runs.

    Args:
        build: Makes the model and its example inputs.
        record: Filled stage by stage.
    """
    torch.manual_seed(0)
    model, example = build()
    model.eval()
    shapes = _shapes(model, example)
    before = sum(parameter.numel() for parameter in model.parameters())
    record.stage = "construct"
    start = time.process_time()
    pruner = torch_pruning.pruner.BasePruner(
        model,
        example,
        importance=torch_pruning.importance.RandomImportance(),
        pruning_ratio=SHARE,
        ignored_layers=output_layers(model),
    )
    record.stage = "step"
    pruner.step()
    record.values["seconds"] = time.process_time() - start
    record.stage = "run smaller"
    after = sum(parameter.numel() for parameter in model.parameters())
    record.values["params_left"] = after / before
    found = _shapes(model, example)
    if found != shapes:
        raise AssertionError(f"shapes {found} instead of {shapes}")
    record.stage = "done"


def output_layers(model: nn.Module) -> list[nn.Module]:
    """Name the layers that make the output: the classifier, else the last weighted layer."""
    if hasattr(model, "get_classifier"):
        found = model.get_classifier()
        found = found if isinstance(found, (tuple, list)) else (found,)
        layers = [module for module in found if isinstance(module, nn.Module)]
        if layers:
            return layers
    weighted = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d, nn.Conv3d))]
    return weighted[-1:]


def _shapes(model: nn.Module, example: Any) -> list[tuple[int, ...]]:
    example = tree_map_only(Tensor, Tensor.clone, example)
    with torch.no_grad():
        if isinstance(example, dict):
            output = model(**example)
        else:
            output = model(*(example if isinstance(example, (tuple, list)) else (example,)))
    return [tuple(leaf.shape) for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
