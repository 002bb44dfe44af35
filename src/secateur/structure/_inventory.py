"""The tensors of a model by name, and their meta twins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from secateur.errors import TraceError
from secateur.structure._label import Ids, axis_label
from secateur.structure._structure import TensorInfo
from secateur.structure._tape import Info, Tape
from secateur.structure.rules import attach_info


@dataclass(frozen=True, slots=True, eq=False)
class Inventory:
    """Every parameter and buffer of a model, ties counted once.

    Attributes:
        infos: Description by canonical name, parameters first.
        tensors: The tensor itself by canonical name.
        names: Canonical name by ``id`` of the tensor.
    """

    infos: Mapping[str, TensorInfo]
    tensors: Mapping[str, Tensor]
    names: Mapping[int, str]


def take_inventory(model: nn.Module) -> Inventory:
    """List a model's parameters and buffers.

    Args:
        model: The model.

    Returns:
        Its tensors under their canonical names.

    Raises:
        TraceError: A lazy layer has not made its parameters yet.
    """
    aliases: dict[str, list[str]] = {}
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    for name, tensor in named_tensors(model).items():
        if is_lazy(tensor):
            raise TraceError(
                f"{name} is not made yet: its layer is lazy and has seen no input. Expected a "
                "model whose parameters have shapes. Call it once, as in `model(*inputs)`, and "
                "make its optimizer after that."
            )
        first = names.setdefault(id(tensor), name)
        tensors.setdefault(first, tensor)
        aliases.setdefault(first, []).append(name)
    infos = {
        name: TensorInfo(
            name=name,
            aliases=tuple(aliases[name]),
            shape=tuple(tensor.shape),
            is_parameter=isinstance(tensor, nn.Parameter),
        )
        for name, tensor in tensors.items()
    }
    return Inventory(infos, tensors, names)


def named_modules(model: nn.Module) -> dict[str, nn.Module]:
    """List all modules, shared ones under each of their paths.

    `torch.nn.Module.named_modules` nests generators as deep as the model, which takes several
    times as long.

    Args:
        model: Any module.

    Returns:
        Path to module, in the order in which they were registered; ``""`` is the model.
    """
    found: dict[str, nn.Module] = {}
    waiting = [("", model)]
    while waiting:
        path, module = waiting.pop()
        found[path] = module
        prefix = f"{path}." if path else ""
        children = module.__dict__["_modules"]
        waiting += [
            (prefix + n, child) for n, child in reversed(children.items()) if child is not None
        ]
    return found


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """List parameters and buffers, ties under each of their names.

    Args:
        model: Any module.

    Returns:
        Qualified name to tensor, parameters first.
    """
    parameters: dict[str, Tensor] = {}
    buffers: dict[str, Tensor] = {}
    for path, module in named_modules(model).items():
        prefix = f"{path}." if path else ""
        own = module.__dict__
        for found, kind in ((parameters, "_parameters"), (buffers, "_buffers")):
            for name, tensor in own[kind].items():
                if tensor is not None:
                    found[prefix + name] = tensor
    return parameters | buffers


def fresh_twins(inventory: Inventory, tape: Tape) -> dict[str, Tensor]:
    """Make a meta twin of every tensor and hand out ids to the axes of floating-point ones.

    Args:
        inventory: Tensors of the model.
        tape: Where ids are handed out.

    Returns:
        Twins by canonical name.
    """
    twins = {}
    for name, tensor in inventory.tensors.items():
        if tensor.is_floating_point() or tensor.is_complex():
            labels = tape.allot(name, tensor.shape)
            twins[name] = _twin(tensor, tensor.shape, Info(labels=labels, tensor=name))
        else:
            twins[name] = _twin(tensor, tensor.shape, Info(tensor=name, value=_content(tensor)))
    return twins


def smaller_twins(inventory: Inventory, ids: Mapping[tuple[str, int], Ids]) -> dict[str, Tensor]:
    """Make twins whose axes carry given ids, and are as long.

    Args:
        inventory: Tensors of the model.
        ids: Ids by canonical name and axis, for every axis of floating-point tensors.

    Returns:
        Twins by canonical name.
    """
    twins = {}
    for name, tensor in inventory.tensors.items():
        if (name, 0) not in ids:
            value = None if tensor.is_floating_point() else _content(tensor)
            twins[name] = _twin(tensor, tensor.shape, Info(tensor=name, value=value))
            continue
        own = [ids[name, axis] for axis in range(tensor.ndim)]
        labels = tuple(axis_label(i, axis, tensor.ndim) for axis, i in enumerate(own))
        twins[name] = _twin(tensor, [len(i) for i in own], Info(labels=labels, tensor=name))
    return twins


def _content(tensor: Tensor) -> Tensor | None:
    """Copy what a tensor holds, since a traced forward may overwrite it."""
    return None if tensor.device.type == "meta" else tensor.detach().to("cpu", copy=True)


def _twin(tensor: Tensor, shape: Sequence[int], info: Info) -> Tensor:
    twin = torch.empty(tuple(shape), dtype=tensor.dtype, device="meta")
    if isinstance(tensor, nn.Parameter):
        twin = nn.Parameter(twin, requires_grad=False)
    attach_info(twin, info)
    return twin
