"""Tensors in whatever a model is given or returns: containers, dataclasses, objects with fields."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Container
from typing import Any

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_leaves, tree_map

_Function = Callable[[Tensor], Any]


def map_tensors(function: _Function, value: Any) -> Any:
    """Rebuild a value with every tensor in it replaced; what holds none stays the same object.

    Args:
        function: What becomes of a tensor.
        value: A tensor, a container that PyTorch knows, or an object whose fields hold such.

    Returns:
        The new value.
    """

    def mapped(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return function(leaf)
        if isinstance(leaf, PackedSequence):
            # Its other tensors are numbers about the first, which PyTorch wants on the CPU.
            return leaf._replace(data=function(leaf.data))
        fields = _fields(leaf)
        if not tensors_in(fields):
            return leaf
        twin = copy.copy(leaf)
        for name, entry in fields.items():
            object.__setattr__(twin, name, tree_map(mapped, entry, is_leaf=_is_packed))
        return twin

    return tree_map(mapped, value, is_leaf=_is_packed)


def tensors_in(value: Any, *, skip: Container[int] = ()) -> list[Tensor]:
    """List the tensors in a value, also those in fields of objects in it.

    Args:
        value: Anything.
        skip: ``id`` of objects that are not looked into.

    Returns:
        The tensors in order, each as often as it occurs; an object is looked into once.
    """
    found: list[Tensor] = []
    seen: dict[int, Any] = {}

    def visit(entry: Any) -> None:
        for leaf in tree_leaves(entry, is_leaf=_is_packed):
            if isinstance(leaf, Tensor):
                found.append(leaf)
            elif isinstance(leaf, PackedSequence):
                found.append(leaf.data)
            elif id(leaf) not in seen and id(leaf) not in skip:
                seen[id(leaf)] = leaf
                for field in _fields(leaf).values():
                    visit(field)

    visit(value)
    return found


def _is_packed(value: Any) -> bool:
    return isinstance(value, PackedSequence)


def _fields(value: Any) -> dict[str, Any]:
    """Return what an object holds; nothing for modules, classes and functions."""
    if isinstance(value, nn.Module) or callable(value):
        return {}
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return dict(getattr(value, "__dict__", {}))
