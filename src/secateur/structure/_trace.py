"""`trace`: find the structure of a model by running it once on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import TraceError
from secateur.structure._assemble import cost, families, fixed_axes, number_units
from secateur.structure._solve import solve
from secateur.structure._structure import Structure, TensorInfo
from secateur.structure._tape import Info, Tape
from secateur.structure._tracer import Stage
from secateur.structure.rules import attach_info


def trace(
    model: nn.Module, example_inputs: Any, *, allow_inexact: bool = False
) -> Structure:
    tensors, names = inventory(model)
    tape = Tape()
    twins = {}
    for (name, info), tensor in zip(tensors.items(), first_tensors(model), strict=True):
        twins[name] = twin(tensor, tape, name)
    example = as_example(example_inputs)
    stage = Stage(model, twins, names)
    with stage.open(training=False):
        stage.run(tape, example)
    solution = solve(tape, tensors, allow_inexact=allow_inexact)
    units = number_units(tape, solution)
    return Structure(
        families=families(tape, solution, units, tensors),
        layers=(),
        fixed=tuple(fixed_axes(tape, solution, tensors)),
        tensors=tensors,
        cost=cost(tape, solution, units, tensors, (), ()),
        example=example,
    )


def as_example(example_inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


def inventory(model):
    seen = {}
    aliases = {}
    names = {}
    for kind, it in ((True, model.named_parameters(remove_duplicate=False)), (False, model.named_buffers(remove_duplicate=False))):
        for name, tensor in it:
            if id(tensor) in names:
                aliases[names[id(tensor)]].append(name)
                continue
            names[id(tensor)] = name
            aliases[name] = [name]
            seen[name] = (tensor, kind)
    infos = {n: TensorInfo(name=n, aliases=tuple(aliases[n]), shape=tuple(t.shape), is_parameter=k) for n, (t, k) in seen.items()}
    return infos, names

def first_tensors(model):
    seen=set()
    for it in (model.parameters(), model.buffers()):
        for t in it:
            if id(t) not in seen:
                seen.add(id(t)); yield t

def twin(tensor, tape, name):
    t = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
    if isinstance(tensor, nn.Parameter): t = nn.Parameter(t, requires_grad=False)
    labels = tape.allot(name, tensor.shape) if tensor.is_floating_point() else ()
    attach_info(t, Info(labels=labels, tensor=name, value=None if tensor.is_floating_point() else tensor))
    return t
