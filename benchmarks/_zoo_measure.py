"""What is measured of one model of the zoo: trace, removal, and whether the result is right.

Units are removed from every family and every second layer goes; the smaller model is then held
against the whole one with the same structures silenced.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from _random_units import random_part
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

import secateur
from secateur.structure import Live, Structure, prove
from secateur.surgery import _masked, _precision, _randomise, _steady, cut_

SHARE = 0.3
"""Part of every family that is removed."""
EXACT = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Largest difference, as a part of the largest output, that rounding explains in a model that
computes in this type throughout."""


@dataclass(slots=True)
class Record:
    """What was found out so far; the stage tells where it ended.

    Attributes:
        stage: Last stage that began.
        values: Figures by name.
    """

    stage: str = "build"
    values: dict[str, Any] = field(default_factory=dict)


def measure(
    build: Callable[[], tuple[nn.Module, Any]],
    record: Record,
    float64_bytes: float,
    allow_inexact: bool = False,
) -> None:
    """Fill a record; whatever goes wrong is raised.

    Args:
        build: Makes the model and its example inputs.
        record: Filled stage by stage.
        float64_bytes: Models whose copies would take more than this are compared in float32.
        allow_inexact: Whether units that share a statistic are removed, too.
    """
    values = record.values
    torch.manual_seed(0)
    model, example = build()
    model.eval()
    size = sum(parameter.numel() for parameter in model.parameters())
    values["params"] = size
    dtype = torch.float64 if size * 8 * 3 <= float64_bytes else torch.float32
    values["dtype"] = str(dtype).removeprefix("torch.")

    record.stage = "trace"
    start = time.process_time()
    structure = secateur.trace(model, example, allow_inexact=allow_inexact)
    values["trace_seconds"] = time.process_time() - start
    values["families"] = len(structure.families)
    values["units"] = structure.num_units
    values["layers"] = structure.num_layers
    values["covered"] = covered_share(model, structure)
    values["fixed"] = _reasons(model, structure)

    generator = torch.Generator().manual_seed(0)
    _randomise.randomise_(model, generator)
    masked = copy.deepcopy(model)
    example = tree_map_only(Tensor, lambda t: _varied(t, generator), structure.example)
    live = _shrink(model, structure, example, record)

    record.stage = "compare"
    _masked.silence_(masked, structure, live)
    model.to(dtype), masked.to(dtype)
    precise = tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, example)
    with _precision.Precision() as precision:
        with _masked.LiveNorms(masked, structure, live):
            expected = _run(masked, precise)
        del masked
        values["difference"] = difference(expected, _run(model, precise))
    values["rounds_to"] = _precision.name_of(precision.coarsest)
    allowed = max(EXACT[dtype], _precision.allowed_difference(precision.coarsest))
    if not values["difference"] <= allowed:
        raise AssertionError(f"masked and smaller model differ by {values['difference']:.1e}")
    record.stage = "backward"
    _backward(model, precise)
    record.stage = "cost"
    _check_cost(model, structure, live, precise, values)
    record.stage = "done"


def _shrink(model: nn.Module, structure: Structure, example: Any, record: Record) -> Live:
    """Remove units and layers from a model, prove the result and run it."""
    values = record.values
    record.stage = "run"
    whole = _run(model, example)
    record.stage = "remove"
    decision = random_part(structure, SHARE)
    values["removed_units"] = sum(len(gone) for gone in decision.units.values())
    values["removed_layers"] = len(decision.layers)
    start = time.process_time()
    live, _ = cut_(model, structure, structure.everything(), decision, proof=False)
    values["remove_seconds"] = time.process_time() - start
    record.stage = "proof"
    start = time.process_time()
    prove(model, structure, live)
    values["proof_seconds"] = time.process_time() - start
    record.stage = "run smaller"
    smaller = _run(model, example)
    if [t.shape for t in whole] != [t.shape for t in smaller]:
        raise AssertionError(
            f"shapes {[tuple(t.shape) for t in smaller]} instead of "
            f"{[tuple(t.shape) for t in whole]}"
        )
    return live


def covered_share(model: nn.Module, structure: Structure) -> float:
    """Share of the parameters outside embeddings that have a removable axis or leave with a layer.

    Args:
        model: The model.
        structure: What was found in it.

    Returns:
        A number from 0 to 1.
    """
    covered = {member.tensor for family in structure.families for member in family.members}
    covered |= {name for layer in structure.layers for name in layer.tensors}
    sizes = _sizes(model, structure)
    return sum(size for name, size in sizes.items() if name in covered) / sum(sizes.values())


def _sizes(model: nn.Module, structure: Structure) -> dict[str, int]:
    """Number of elements of every parameter outside embeddings, ties counted once."""
    embedded = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    }
    tensors = secateur.structure.named_tensors(model)
    return {
        name: tensors[name].numel()
        for name, info in structure.tensors.items()
        if info.is_parameter and id(tensors[name]) not in embedded
    } or {"": 1}


def _reasons(model: nn.Module, structure: Structure) -> list[list[Any]]:
    """Why parameters are not covered: (elements, reason, example), the heaviest first."""
    covered = {member.tensor for family in structure.families for member in family.members}
    covered |= {name for layer in structure.layers for name in layer.tensors}
    sizes = _sizes(model, structure)
    heavy: Counter[str] = Counter()
    first: dict[str, str] = {}
    seen: set[str] = set()
    for fixed in structure.fixed:
        name = fixed.what.partition("[")[0]
        if name in sizes and name not in covered and fixed.what not in seen:
            seen.add(fixed.what)
            heavy[fixed.reason.message] += sizes[name]
            first.setdefault(fixed.reason.message, f"{fixed.what}: {fixed.reason}")
    for fixed in structure.fixed:
        if fixed.what.startswith("branch in "):
            heavy[fixed.reason.message] += 0
            first.setdefault(fixed.reason.message, f"{fixed.what}: {fixed.reason}")
    return [[count, message, first[message]] for message, count in heavy.most_common()]


def difference(expected: list[Tensor], found: list[Tensor]) -> float:
    """Largest difference between outputs, as a part of the largest output."""
    largest = 0.0
    for a, b in zip(expected, found, strict=True):
        if a.numel() and a.is_floating_point():
            if not bool(a.isfinite().all()):
                raise AssertionError("the outputs of the masked model are not finite")
            scale = float(a.abs().max().clamp_min(torch.finfo(a.dtype).tiny))
            largest = max(largest, float((a - b).abs().max()) / scale)
    return largest


def _varied(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not tensor.is_floating_point() or bool((tensor != tensor.flatten()[0]).any()):
        return tensor
    return torch.randn(tensor.shape, generator=generator)


def _run(model: nn.Module, example: Any) -> list[Tensor]:
    args, kwargs = tree_map_only(Tensor, Tensor.clone, example)
    with torch.no_grad(), _steady.Steady():
        return _tensors(model(*args, **kwargs))


def _tensors(output: Any) -> list[Tensor]:
    found = []
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, nn.Module):
            found += [t for t in tree_leaves(list(vars(leaf).values())) if isinstance(t, Tensor)]
    return found


def _backward(model: nn.Module, example: Any) -> None:
    """One step of gradient descent; every parameter that is used gets a gradient of its shape."""
    args, kwargs = tree_map_only(Tensor, Tensor.clone, example)
    with _steady.Steady():  # grouped products have no kernel for float64
        outputs = [t for t in _tensors(model(*args, **kwargs)) if t.requires_grad]
    sum(t.square().mean() for t in outputs).backward()
    parameters = [p for p in model.parameters() if p.grad is not None]
    if not parameters:
        raise AssertionError("no parameter of the smaller model has a gradient")
    torch.optim.SGD(parameters, lr=0.01).step()
    model.zero_grad(set_to_none=True)


def _attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> int:
    """Heads of keys and values that several heads of queries share are multiplied for each."""
    shared = [(*query[:-2], *shape[-2:]) for shape in (key, value)]
    return sdpa_flop_count(query, *shared)


# Without it the counter misses attention on the CPU altogether.
_COUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}


def _check_cost(
    model: nn.Module, structure: Structure, live: Live, example: Any, values: dict[str, Any]
) -> None:
    """Compare both polynomials with a count on the smaller model."""
    cost = structure.cost
    params = sum(parameter.numel() for parameter in model.parameters())
    values["params_left"] = params / cost.params.value()
    predicted = cost.params.value(live.counts, live.layers)
    if abs(predicted - params) > 0.5:
        raise AssertionError(f"{predicted:.0f} parameters predicted, {params} counted")
    args, kwargs = tree_map_only(Tensor, Tensor.clone, example)
    model.requires_grad_(False)  # the counter trips over parameters that want gradients
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
        # The counter does not know the recurrent kernels of oneDNN.
        kernels = torch.backends.mkldnn.flags(enabled=False) if recurrent else nullcontext()
        counting = FlopCounterMode(display=False, custom_mapping=_COUNTED)
        with kernels, counting as counter, torch.no_grad(), _steady.Steady():
            model(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    counted = counter.get_total_flops() / 2
    predicted = cost.macs.value(live.counts, live.layers)
    values["macs_left"] = predicted / max(cost.macs.value(), 1.0)
    if abs(predicted - counted) > 1e-6 * max(counted, 1.0):
        raise AssertionError(f"{predicted:.0f} MACs predicted, {counted:.0f} counted")
