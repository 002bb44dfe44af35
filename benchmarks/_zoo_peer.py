"""Torch-Pruning on the same models: construction and one step, by its defaults.

Our own trace and removal of as many units is timed in the same process right before, on a copy of
the same float32 model, after both have worked on a small network once: first calls load code.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import Any

import torch
import torch_pruning
from _zoo_measure import SHARE, Record
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

import secateur
from secateur.structure import Decision
from secateur.surgery import cut_


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
    _warm_up()
    record.stage = "our own"
    record.values["own_seconds"] = _own_seconds(copy.deepcopy(model), example)
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


def _own_seconds(model: nn.Module, example: Any) -> float:
    """Return the processor time of trace and removal; Torch-Pruning has no proof."""
    start = time.process_time()
    structure = secateur.trace(model, example)
    generator = torch.Generator().manual_seed(0)
    units = {
        number: torch.randperm(family.num_units, generator=generator)[
            : min(round(SHARE * family.num_units), family.num_units - 1)
        ]
        for number, family in enumerate(structure.families)
    }
    cut_(model, structure, structure.everything(), Decision(units=units), proof=False)
    return time.process_time() - start


def _warm_up() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3))
    images = torch.zeros(1, 3, 8, 8)
    _own_seconds(copy.deepcopy(network), images)
    torch_pruning.pruner.BasePruner(
        network,
        images,
        importance=torch_pruning.importance.RandomImportance(),
        pruning_ratio=SHARE,
        ignored_layers=[network[-1]],
    ).step()


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
