"""Tensors that the forward makes itself: they are as wide as what gave them their size.

A size read from the shape of a labelled tensor remembers the ids it counts, and a number kept by a
module its place. A tensor of equal values, or of noise, made with such a size or repeated to it
carries the ids on that axis, so a state of zeros follows the units it is a state of. Every number
kept by a module gets ids of its own each time: what it counts is found out by what a tensor meets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from secateur.structure._counted import Counted
from secateur.structure._label import axis_label
from secateur.structure._measured import MeasuredInt, Origin, flat_sizes
from secateur.structure._tape import Tape
from secateur.structure._told import Stored
from secateur.structure._use import Use
from secateur.structure.rules import info_of

_WITH_TENSOR = frozenset(("new_zeros", "new_ones", "new_full", "new_empty"))
_MAKERS = frozenset(("zeros", "ones", "full", "empty", "rand", "randn")) | _WITH_TENSOR
_RESHAPES = frozenset(("reshape", "view"))
_SHAPE = torch.Tensor.shape.__get__  # type: ignore[attr-defined]


def remember_shape(tape: Tape, func: Any, name: str, args: Sequence[Any], out: Any) -> Any:
    """Let sizes read from a tensor remember what they count.

    Args:
        tape: The trace.
        func: Function of PyTorch that was called.
        name: Its name.
        args: Its arguments.
        out: What it returned.

    Returns:
        The same numbers.
    """
    if name == "size":
        if isinstance(out, int):
            axis = args[1] if len(args) > 1 else -1
            return _counted(tape, args[0], axis % args[0].ndim, out)
    elif name != "__get__" or func != _SHAPE:
        return out
    if not info_of(args[0]).labels:
        return out
    return torch.Size([_counted(tape, args[0], axis, size) for axis, size in enumerate(out)])


def _counted(tape: Tape, tensor: Tensor, axis: int, size: int) -> int:
    labels = [label for label in info_of(tensor).labels if axis in label.axes]
    if not labels:
        return size
    alone = len(labels) == 1 and labels[0].axes == {axis}
    counted = Counted(size) if alone else MeasuredInt(size)
    counted.origins = tuple(Origin(tape, label, axis) for label in labels)
    if isinstance(counted, Counted):
        counted.ids = labels[0].ids.ravel()
    return counted


def label_made(tape: Tape, name: str, args: Sequence[Any], kwargs: Any, out: Any) -> None:
    """Label a tensor of equal values, or of noise, that the forward made.

    Args:
        tape: Where ids are handed out.
        name: Name of the function that made it.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        out: The tensor.
    """
    if not isinstance(out, Tensor) or name not in _MAKERS | _RESHAPES:
        return
    given = args if name in _MAKERS - _WITH_TENSOR else args[1:]
    sizes = flat_sizes(given) or kwargs.get("size", kwargs.get("shape", ()))
    labels = []
    for axis, size in enumerate(sizes[: out.ndim]):
        if name in _RESHAPES and not (isinstance(size, Stored) and _repeats(out, axis)):
            continue
        ids = None
        if isinstance(size, Counted):
            ids = size.ids
        elif isinstance(size, Stored):
            ids = tape.ids_of_made(size.source, int(size))
            where = tape.nodes[-1]
            tape.uses.append(Use(size.source, ids, where.file, where.line, size.times))
        if ids is not None and len(ids) == out.shape[axis]:
            labels.append(axis_label(ids, axis, out.ndim))
    if labels:
        node = tape.nodes[-1]
        node.labels = info_of(out).labels = tuple(labels)
        tape.doubts.append(node)


def _repeats(out: Tensor, axis: int) -> bool:
    """Tell whether a tensor is one value a position of other axes, repeated along this one."""
    return out.shape[axis] > 1 and out.stride(axis) == 0 and not info_of(out).labels
