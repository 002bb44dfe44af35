"""Torch-Pruning on the same models: construction and one step, by its defaults.

Our own trace and removal of as many units takes turns with it in the same process, each on a fresh
copy of the same float32 model; a first turn, which loads code, does not count.
"""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch_pruning
from _random_units import random_units
from _zoo_measure import SHARE, Record
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

import secateur
from secateur.structure import Decision
from secateur.surgery import cut_

COUNTED = 3


def measure_peer(build: Callable[[], tuple[nn.Module, Any]], record: Record) -> None:
    """Fill a record with the median seconds of both, and whether the smaller model runs.

    Args:
        build: Makes the model and its example inputs.
        record: Filled stage by stage.
    """
    torch.manual_seed(0)
    model, example = build()
    model.eval()
    shapes = _shapes(model, example)
    before = sum(parameter.numel() for parameter in model.parameters())
    own, peer = [], []
    for _ in range(1 + COUNTED):
        record.stage = "our own"
        own.append(_own_seconds(copy.deepcopy(model), example))
        smaller = copy.deepcopy(model)
        peer.append(_peer_seconds(smaller, example, record))
    record.values["own_seconds"] = statistics.median(own[1:])
    record.values["seconds"] = statistics.median(peer[1:])
    record.stage = "run smaller"
    after = sum(parameter.numel() for parameter in smaller.parameters())
    record.values["params_left"] = after / before
    found = _shapes(smaller, example)
    if found != shapes:
        raise AssertionError(f"shapes {found} instead of {shapes}")
    record.stage = "done"


def _own_seconds(model: nn.Module, example: Any) -> float:
    """Return the processor time of trace and removal; Torch-Pruning has no proof."""
    start = time.process_time()
    structure = secateur.trace(model, example)
    units = random_units(structure, SHARE)
    cut_(model, structure, structure.everything(), Decision(units=units), proof=False)
    return time.process_time() - start


def _peer_seconds(model: nn.Module, example: Any, record: Record) -> float:
    """Return the processor time of Torch-Pruning's construction and step."""
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
    return time.process_time() - start


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
