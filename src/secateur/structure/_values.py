"""What tensors hold for real, where that follows from numbers and not from data.

Masks, positions and counters decide which way a forward goes. Their content is computed beside the
meta tensors, overwritten when they are, and forgotten once something unknown is written to it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from secateur.structure._tape import Info
from secateur.structure.rules import attach_info, info_of

MAX_ELEMENTS = 2_000_000
"""Larger tensors are not computed."""

_ALMOST_ONE = 1 - 2**-24
"""What a coin shows that decides whether a layer runs: that it does."""


class Values:
    """The contents that are known during one run."""

    def __init__(self) -> None:
        self._forgotten: dict[int, Tensor] = {}

    def refresh(self, infos: Sequence[Info]) -> None:
        """Take the content from tensors that share memory with one that is no longer known."""
        if self._forgotten:
            for info in infos:
                if info.value is not None and _memory(info.value) in self._forgotten:
                    info.value = None

    def known(self, tensor: Tensor) -> Tensor | None:
        """Return the content of a tensor, or None where it depends on data."""
        info = info_of(tensor)
        self.refresh([info])
        return info.value if tensor.device.type == "meta" else tensor

    def compute(
        self, func: Any, args: Any, kwargs: Any, tensors: Sequence[Tensor], infos: Sequence[Info]
    ) -> Any:
        """Carry an operation out for real where all that goes into it is known and small.

        Args:
            func: The ATen operation.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            tensors: The tensors among them.
            infos: What is known of these.

        Returns:
            What it returns, or None.
        """
        unknown = any(info.value is None for info in infos)
        if unknown or torch.Tag.nondeterministic_seeded in func.tags:
            for tensor in overwritten(func, args, kwargs):
                self._forget(info_of(tensor).value)
            return _assumed(func._schema.name, args, tensors)
        if not tensors and func._schema.name.startswith("aten::empty"):
            return None
        arguments, options = tree_map_only(Tensor, lambda t: info_of(t).value, (args, kwargs))
        if options.get("device") is not None:
            options["device"] = torch.device("cpu")
        value = func(*arguments, **accepted(func, options))
        return value if all(v.numel() <= MAX_ELEMENTS for v in results(value)) else None

    def _forget(self, value: Tensor | None) -> None:
        if value is not None and value.numel():
            self._forgotten[_memory(value)] = value


def _assumed(name: str, args: Any, tensors: Sequence[Tensor]) -> Tensor | None:
    """Say what chance and data show where a forward cannot go on without an answer.

    Args:
        name: Name of the ATen operation.
        args: Its positional arguments.
        tensors: The tensors among them.

    Returns:
        A coin that decides for the layer; all positions where data choose some, so that each expert
        gets every token, and no fewer; that nothing is infinite or not a number; None for anything
        else.
    """
    if name in _OF_FINITE and tensors[0].numel() <= MAX_ELEMENTS:
        return _OF_FINITE[name](args)
    if name == "aten::rand" and math.prod(args[0]) == 1:
        return torch.full(args[0], _ALMOST_ONE)
    if name == "aten::nonzero" and tensors[0].numel() <= MAX_ELEMENTS:
        return torch.ones(tensors[0].shape, dtype=torch.bool).nonzero()
    return None


def _is_no_number(args: Any) -> Tensor:
    return torch.zeros(args[0].shape, dtype=torch.bool)


def _equals(args: Any) -> Tensor | None:
    """Compare with itself, as a number that is finite, or with infinity."""
    x, other = args
    if x is not other and not (isinstance(other, float) and math.isinf(other)):
        return None
    return torch.full(x.shape, x is other)


def _differs(args: Any) -> Tensor | None:
    equal = _equals(args)
    return None if equal is None else ~equal


_OF_FINITE: Mapping[str, Callable[[Any], Tensor | None]] = {
    "aten::isnan": _is_no_number,
    "aten::isinf": _is_no_number,
    "aten::isposinf": _is_no_number,
    "aten::isneginf": _is_no_number,
    "aten::eq": _equals,
    "aten::ne": _differs,
}
"""What questions answer that `isfinite` and its like are made of."""


def as_positions(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Write masks of known content as the positions they pick.

    Args:
        indices: What a tensor is indexed with, an entry an axis; a mask may stand for several.

    Returns:
        Entries without masks, except those whose content is not known.
    """
    found: list[Tensor | None] = []
    for index in indices:
        value = None if index is None else info_of(index).value
        if index is None or value is None or not is_mask(index):
            found.append(index)
            continue
        for positions in value.nonzero(as_tuple=True):
            twin = torch.empty_like(positions, device="meta")
            attach_info(twin, Info(node=info_of(index).node, value=positions))
            found.append(twin)
    return found


def is_mask(index: Tensor) -> bool:
    """Tell whether an index says of every position whether it is picked."""
    return index.dtype in {torch.bool, torch.uint8}


def results(out: Any) -> Iterator[Tensor]:
    """Yield the tensors an operation returned."""
    if isinstance(out, Tensor):
        yield out
    elif isinstance(out, (tuple, list)):
        for item in out:
            yield from results(item)


def accepted(func: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    """Leave out keyword arguments that an operation does not have."""
    names = _argument_names(func)
    return {name: value for name, value in kwargs.items() if name in names}


@functools.cache
def _argument_names(func: Any) -> frozenset[str]:
    return frozenset(argument.name for argument in func._schema.arguments)


def overwritten(func: Any, args: Any, kwargs: Any) -> Iterator[Tensor]:
    """Yield the tensors that an operation writes to."""
    if not func._schema.is_mutable:
        return
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[position] if position < len(args) else kwargs.get(argument.name)
            yield from results(value)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
