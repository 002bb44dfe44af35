"""Pouring stored tensors and states into a model of the right shapes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import Tensor, nn

from secateur.errors import StorageError
from secateur.storage._document import Document, TensorRecord
from secateur.storage._inventory import Held, inventory
from secateur.structure import named_modules


def fill_(model: nn.Module, document: Document, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Give a model the tensors, ties and extra states of a save, in place.

    Tensors that have values already keep their objects, so that whatever else refers to them
    stays right; tensors on the meta device are replaced.

    Args:
        model: The model, cut as the save says.
        document: What the save holds.
        tensors: Name to values, on the device they shall live on.
        path: The folder, for errors.

    Raises:
        StorageError: If the model has other tensors or states than the save.
    """
    built = {name: held for held in inventory(model) for name in held.names}
    _check_tensors(built, document, path)
    modules = named_modules(model)
    used: dict[int, Tensor] = {}
    for name, record in document.tensors.items():
        filled = _filled(built[name], tensors[name], used)
        used[id(filled)] = filled
        for alias in (name, *record.aliases):
            owner, _, attribute = alias.rpartition(".")
            _set_(modules[owner], attribute, filled)
    _restore_extra_states_(model, document.extra_state, path)


def _filled(held: Held, values: Tensor, used: Mapping[int, Tensor]) -> Tensor:
    tensor = held.tensor
    if not tensor.is_meta and id(tensor) not in used:
        tensor.data = values
        return tensor
    if _has_more_to_it(tensor):
        return tensor  # stays on meta; `load` sees that and builds the model with values
    if not held.is_parameter:
        return values.requires_grad_(tensor.requires_grad)
    return nn.Parameter(values, requires_grad=tensor.requires_grad)


def _has_more_to_it(tensor: Tensor) -> bool:
    """Tell a tensor that a new one of the same values would not stand in for."""
    hooks = tensor._backward_hooks or getattr(tensor, "_post_accumulate_grad_hooks", None)
    return type(tensor) not in (nn.Parameter, Tensor) or bool(vars(tensor)) or bool(hooks)


def _set_(owner: nn.Module, attribute: str, tensor: Tensor) -> None:
    if attribute in owner._buffers:
        owner._buffers[attribute] = tensor
    elif owner._parameters[attribute] is not tensor:
        setattr(owner, attribute, tensor)  # recurrent modules keep a second list up to date here


def _check_tensors(built: Mapping[str, Held], document: Document, path: Path) -> None:
    stored = {
        name: record
        for first, record in document.tensors.items()
        for name in (first, *record.aliases)
    }
    for name in sorted(built.keys() - stored.keys()):
        shape = list(built[name].tensor.shape)
        raise StorageError(
            _another_model(path, f"it has tensor {name!r} {shape}, which the save does not hold")
        )
    for name in sorted(stored.keys() - built.keys()):
        shape = list(stored[name].shape)
        raise StorageError(
            _another_model(path, f"it lacks tensor {name!r} {shape}, which the save holds")
        )
    for name, record in stored.items():
        _check_tensor(name, built[name], record, path)
    for name, record in document.tensors.items():
        if built[name].is_parameter is not record.is_parameter:
            kinds = ("a parameter", "a buffer")
            here, there = kinds if record.is_parameter else kinds[::-1]
            raise StorageError(
                _another_model(path, f"tensor {name!r} is {there} in it and {here} in the save")
            )


def _check_tensor(name: str, held: Held, record: TensorRecord, path: Path) -> None:
    shape = list(held.tensor.shape)
    if shape != list(record.shape):
        raise StorageError(
            _another_model(
                path,
                f"tensor {name!r} has shape {shape} in it, after the stored edit, and "
                f"{list(record.shape)} in the save",
            )
        )
    dtype: torch.dtype = getattr(torch, record.dtype)
    if dtype.is_floating_point is not held.tensor.dtype.is_floating_point:
        raise StorageError(
            _another_model(
                path, f"tensor {name!r} is {held.tensor.dtype} in it and {dtype} in the save"
            )
        )


def _restore_extra_states_(model: nn.Module, states: Mapping[str, JsonValue], path: Path) -> None:
    stateful = {
        name: module
        for name, module in model.named_modules()
        if type(module).get_extra_state is not nn.Module.get_extra_state
    }
    for name in sorted(states.keys() ^ stateful.keys()):
        kinds = ("has an extra state", "has none")
        here, there = kinds if name in stateful else kinds[::-1]
        raise StorageError(
            _another_model(path, f"module {name!r} {here} in it and {there} in the save")
        )
    for name, state in states.items():
        stateful[name].set_extra_state(state)


def _another_model(path: Path, fact: str) -> str:
    return (
        f"build_model builds another model than the one saved in {path}: {fact}. Pass the function "
        "and the settings that the model was trained with."
    )
