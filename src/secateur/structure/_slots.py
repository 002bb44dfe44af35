"""Where modules keep whole numbers: attributes, entries of tuples, fields of configurations.

A slot is named as a user would write it after ``module.``, such as ``num_heads``, ``splits.1`` or
``config.hidden_size``.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from secateur.structure._sizes import AttributeValue

OF_EVERY_MODULE = frozenset(vars(nn.Module()))
"""Attributes that every module has, whatever it computes."""
_NO_CONFIGURATION = (
    nn.Module, Tensor, type, FunctionType, MethodType, ModuleType, partial, torch.Generator,
)  # fmt: skip


def slots(state: MutableMapping[str, Any]) -> Iterator[tuple[str, int]]:
    """List the whole numbers a module keeps.

    Args:
        state: The module's ``__dict__``.

    Yields:
        Slot and number.
    """
    for name, value in state.items():
        if name in OF_EVERY_MODULE:
            continue
        if type(value) is int:
            yield name, value
        elif _is_sequence(value):
            yield from ((f"{name}.{i}", number) for i, number in enumerate(value))
        elif _is_configuration(value):
            yield from (
                (f"{name}.{field}", number)
                for field, number in vars(value).items()
                if type(number) is int
            )


def read_slot(module: nn.Module, slot: str) -> AttributeValue | None:
    """Return what a module keeps in a slot.

    Args:
        module: The module.
        slot: Its name; that of a whole tuple is one, too.

    Returns:
        The number or tuple of numbers, or None where the module keeps nothing of the kind.
    """
    value = vars(module).get(slot)
    if isinstance(value, tuple) and value and all(type(part) is int for part in value):
        return value
    return dict(slots(vars(module))).get(slot)


def write_slot(state: MutableMapping[str, Any], slot: str, value: AttributeValue) -> None:
    """Change a number that a module keeps.

    What holds the number is replaced by a copy: configurations and tuples may be shared with other
    modules, which keep their own number. Restoring ``state[holder_of(slot)]`` undoes the change.

    Args:
        state: The module's ``__dict__``.
        slot: A slot that `read_slot` knows.
        value: The new number.
    """
    name, _, inner = slot.partition(".")
    old = state[name]
    if not inner:
        state[name] = value
    elif isinstance(old, (tuple, list)):
        parts = list(old)
        parts[int(inner)] = value
        state[name] = type(old)(parts)
    else:
        state[name] = _copy_of(old)
        vars(state[name])[inner] = value


def holder_of(slot: str) -> str:
    """Name the attribute that changes with a slot."""
    return slot.partition(".")[0]


def _is_sequence(value: object) -> bool:
    return (
        type(value) in (tuple, list, torch.Size)
        and bool(value)
        and all(type(part) is int for part in value)  # type: ignore[attr-defined]
    )


def _is_configuration(value: object) -> bool:
    """Tell whether something is a plain bag of settings: fields, and no behaviour of a module."""
    if isinstance(value, _NO_CONFIGURATION) or callable(value) or not hasattr(value, "__dict__"):
        return False
    return any(type(field) is int for field in vars(value).values()) and _can_copy(value)


def _can_copy(value: object) -> bool:
    """Tell whether an object is all in its ``__dict__``."""
    return type(value).__new__ is object.__new__ and not isinstance(value, (dict, list, tuple))


def _copy_of(value: object) -> object:
    copy = object.__new__(type(value))
    vars(copy).update(vars(value))
    return copy
