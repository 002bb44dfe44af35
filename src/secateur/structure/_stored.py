"""Sizes that modules keep as numbers: seen where the forward uses them, tied to what they count.

While a model is traced, the whole numbers of its modules remember where they are kept. A number
that is used, as it is, as the size of an axis has to follow that axis. Whether that is all that has
to follow is not decided here: the model is tried at another size afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from secateur.structure._cost import Factor
from secateur.structure._label import Ids
from secateur.structure._measured import Measured, flat_sizes
from secateur.structure._slots import slots, write_slot
from secateur.structure._structure import StoredSize
from secateur.structure._tape import CONSTANT_ID, Tape, Use
from secateur.structure._units import Units, even_axis_factor
from secateur.structure.rules import info_of


class Stored(int):
    """A whole number that remembers the module and the slot it is kept in."""

    source: tuple[str, str]
    __hash__ = int.__hash__

    def __eq__(self, other: object) -> bool:
        """Compare as a number, and let a size on the other side see what it is compared with."""
        return NotImplemented if isinstance(other, Measured) else int.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        """As `__eq__`."""
        return NotImplemented if isinstance(other, Measured) else int.__ne__(self, other)


def marked(path: str, state: dict[str, Any]) -> dict[str, Any]:
    """Let the whole numbers of a module remember where they are kept.

    Args:
        path: Path of the module.
        state: Its ``__dict__``, which stays as it is.

    Returns:
        What differs in a marked ``__dict__``.
    """
    result = dict(state)
    for slot, number in list(slots(state)):
        stored = Stored(number)
        stored.source = path, slot
        write_slot(result, slot, stored)
    return {name: value for name, value in result.items() if value is not state[name]}


def note_uses(tape: Tape, name: str, args: Sequence[Any], kwargs: Any, out: Any) -> None:
    """Record which stored numbers a function of PyTorch was given as sizes.

    Args:
        tape: Where uses are written.
        name: Name of the function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        out: What it returned.
    """
    handler = _HANDLERS.get(name)
    if handler is None or not args or not _has_stored((*args, *kwargs.values())):
        if name in _COMPARISONS and isinstance(args[1], Stored):
            _note_limit(tape, args[0], args[1])
        return
    for number, tensor, axis, stop in handler(args, kwargs, out):
        if isinstance(number, Stored):
            ids = ids_along(tensor, axis % tensor.ndim, stop)
            if tape.inside is not None:
                _tie(tape, number, ids)
            node = tape.nodes[-1]
            tape.uses.append(Use(number.source, ids, node.file, node.line))


def _note_limit(tape: Tape, tensor: Any, number: Stored) -> None:
    """Record a stored number that references to units are compared with: there is none so large."""
    refers = info_of(tensor).refers if isinstance(tensor, Tensor) else None
    if refers is not None and number == np.count_nonzero(refers != CONSTANT_ID):
        node = tape.nodes[-1]
        tape.uses.append(Use(number.source, refers[:number], node.file, node.line))


def _tie(tape: Tape, number: Stored, ids: Ids | None) -> None:
    """Note that a number counts several kinds of units: they stay equally many."""
    before = (use.ids for use in tape.uses if use.source == number.source and use.ids is not None)
    first = next(before, None)
    if first is not None and ids is not None and len(first) == len(ids):
        tape.ties.append((first, ids, tape.nodes[-1]))


def stored_sizes(
    uses: Sequence[Use], component: NDArray[np.int64], units: Units
) -> tuple[StoredSize, ...]:
    """Find the stored numbers that count units.

    Args:
        uses: Where stored numbers were used as sizes.
        component: Component of every id.
        units: Families and unit numbers of components.

    Returns:
        Every number whose uses agree on what it counts and that can change.
    """
    found: dict[tuple[str, str], set[Factor | None]] = {}
    for use in uses:
        factor = None if use.ids is None else even_axis_factor(units, component[use.ids])
        found.setdefault(use.source, set()).add(factor)
    return tuple(
        StoredSize(module=module, slot=slot, size=factor)
        for (module, slot), (factor, *others) in ((s, tuple(f)) for s, f in found.items())
        if not others and factor is not None and factor.multiplicity
    )


_Sized = Iterator[tuple[object, Tensor, int, int | None]]
"""A number, the tensor and axis it is the size of, and where it ends, if that is not the end."""


def _has_stored(values: Sequence[Any]) -> bool:
    for value in values:
        if isinstance(value, Stored):
            return True
        if isinstance(value, (tuple, list)) and _has_stored(value):
            return True
        if isinstance(value, slice) and _has_stored((value.start, value.stop)):
            return True
    return False


def ids_along(tensor: Tensor, axis: int, stop: int | None) -> Ids | None:
    """Read the ids on an axis, at the first index of all others."""
    labels = [label for label in info_of(tensor).labels if axis in label.axes]
    if len(labels) != 1:
        return None
    ids = np.moveaxis(labels[0].ids, axis, 0)
    return ids.reshape(len(ids), -1)[:stop, 0]


def _of_view(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> _Sized:
    sizes = flat_sizes(args[1:]) or kwargs.get("shape") or kwargs.get("size") or ()
    for axis, size in enumerate(sizes):
        if isinstance(out, Tensor) and axis < out.ndim:
            yield size, out, axis, None


def _of_unflatten(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> _Sized:
    axis = kwargs.get("dim", args[1] if len(args) > 1 else 0)
    sizes = kwargs.get("sizes", args[2:] and flat_sizes(args[2:]))
    start = axis if axis >= 0 else axis + args[0].ndim
    for i, size in enumerate(sizes or ()):
        yield size, out, start + i, None


def _of_split(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> _Sized:
    given = kwargs.get("split_size_or_sections", kwargs.get("split_size", 0))
    sizes = args[1] if len(args) > 1 else given
    axis = kwargs.get("dim", args[2] if len(args) > 2 else 0)
    sections = sizes if isinstance(sizes, (tuple, list)) else (sizes,)
    for size, part in zip(sections, out, strict=False):  # one size may stand for several parts
        yield size, part, axis, None


def _of_narrow(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> _Sized:
    names = ("dim", "start", "length")
    axis, start, length = (
        kwargs.get(n, args[i + 1] if len(args) > i + 1 else None) for i, n in enumerate(names)
    )
    yield start, args[0], axis, start
    yield length, out, axis, None


def _of_item(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> _Sized:
    source, index = args[0], args[1]
    entries = index if isinstance(index, tuple) else (index,)
    counted = [e for e in entries if e is not None and e is not Ellipsis]
    axis = 0
    for entry in entries:
        if isinstance(entry, Tensor):
            return
        if entry is None:
            continue
        if entry is Ellipsis:
            axis = source.ndim - (len(counted) - axis)
            continue
        if isinstance(entry, slice):
            for bound in (entry.start, entry.stop):
                yield bound, source, axis, bound
        axis += 1


def _of_one_hot(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> _Sized:
    yield kwargs.get("num_classes", args[1] if len(args) > 1 else -1), out, -1, None


def _of_histogram(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> _Sized:
    yield kwargs.get("bins", args[1] if len(args) > 1 else 100), out, 0, None


def _of_convolution(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> _Sized:
    groups = kwargs.get("groups", args[6] if len(args) > 6 else 1)
    axis = 1 if args[0].ndim == args[1].ndim else 0
    if groups == args[0].shape[axis]:
        yield groups, args[0], axis, None


def _of_norm(args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> _Sized:
    given = kwargs.get("normalized_shape", kwargs.get("num_groups"))
    shape = args[1] if len(args) > 1 else given
    if isinstance(shape, (tuple, list)):
        for i, size in enumerate(shape):
            yield size, args[0], i - len(shape), None
    elif shape == args[0].shape[1]:
        yield shape, args[0], 1, None


_COMPARISONS = frozenset(("__eq__", "__ne__", "__lt__", "__ge__", "eq", "ne", "lt", "ge"))
_Handler = Callable[[Sequence[Any], Mapping[str, Any], Any], _Sized]
_HANDLERS: Mapping[str, _Handler] = {
    "view": _of_view, "reshape": _of_view, "expand": _of_view, "broadcast_to": _of_view,
    "unflatten": _of_unflatten, "split": _of_split, "split_with_sizes": _of_split,
    "narrow": _of_narrow, "__getitem__": _of_item, "conv1d": _of_convolution,
    "conv2d": _of_convolution, "conv3d": _of_convolution, "layer_norm": _of_norm,
    "rms_norm": _of_norm, "group_norm": _of_norm, "one_hot": _of_one_hot, "histc": _of_histogram,
}  # fmt: skip
