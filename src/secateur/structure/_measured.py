"""Sizes read from a tensor that end up as numbers in arithmetic, such as a scale of 1 / sqrt(size).

A size read from the shape of a labelled tensor remembers the axis it was read from, and so does
every number worked out from it. Where one is given to a function that computes with it, another
size would change values: the axis then has to keep its size.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from secateur.structure._label import Label
from secateur.structure._tape import Tape

_AS_VALUE = "has a size that is used as a number, which changes values"
_WITH_REST = "has a size that is divided into parts with a rest"
SIZED = frozenset((
    "view", "reshape", "unflatten", "expand", "split", "split_with_sizes", "narrow", "__getitem__",
    "tensor_split", "broadcast_to", "as_strided", "unsafe_split", "slice", "hsplit", "vsplit",
    "multi_head_attention_forward",
))  # fmt: skip
"""Functions that are given sizes or positions; `flatten` or `chunk` work them out themselves."""
_ONLY_PLACES = SIZED | {
    "__get__", "size", "zeros", "ones", "full", "empty", "new_zeros", "new_ones", "new_full",
    "new_empty", "arange", "rand", "randn", "conv1d", "conv2d", "conv3d", "conv_transpose1d",
    "conv_transpose2d", "conv_transpose3d", "layer_norm", "rms_norm", "group_norm", "repeat",
    "tile", "repeat_interleave", "chunk", "select", "flatten", "movedim", "permute", "transpose",
}  # fmt: skip
"""Functions for which a number is the place or the size of something, and never a value."""


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """The axis that a size was read from."""

    tape: Tape
    label: Label
    axis: int

    def keep_size(self, message: str = _AS_VALUE) -> None:
        """Let the axis keep its size: its units are fixed, or joint ones united along it."""
        if self.label.axes == {self.axis}:
            self.tape.freeze([self.label], message)
        else:
            self.tape.join_along(self.label, [self.axis])


class Measured:
    """A number worked out from sizes."""

    origins: tuple[Origin, ...]


class MeasuredInt(Measured, int):
    """A whole number worked out from sizes."""

    def __float__(self) -> float:
        """Turn into a plain number, as functions of `math` do, which forget where it is from."""
        for origin in self.origins:
            origin.keep_size()
        return float(int.__int__(self))


class MeasuredFloat(Measured, float):
    """A fraction or a root of sizes."""


def measured(number: Any, origins: tuple[Origin, ...]) -> Any:
    """Let a number remember which sizes it is worked out from.

    Args:
        number: The number; anything else is returned as it is.
        origins: Where the sizes were read.

    Returns:
        The same number.
    """
    if isinstance(number, bool) or not isinstance(number, (int, float)):
        return number
    result = MeasuredInt(number) if isinstance(number, int) else MeasuredFloat(number)
    result.origins = origins
    return result


def flat_sizes(sizes: Sequence[Any]) -> Sequence[Any]:
    """Take sizes as they may be given: one by one, or as one sequence."""
    return sizes[0] if sizes and isinstance(sizes[0], (tuple, list)) else sizes


def keep_sizes(tape: Tape, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Fix the axes whose sizes a function of PyTorch was given as numbers to compute with.

    Where it was given them as sizes of something else, that only fits while both go together.

    Args:
        tape: Where such sizes are noted.
        name: Name of the function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """
    if name in SIZED:
        numbers = _numbers_in((*args[1:], *kwargs.values()))
        origins = [o for n in numbers if isinstance(n, Measured) for o in n.origins]
        if origins:
            labels = tuple(origin.label for origin in origins)
            tape.doubts.append(replace(tape.nodes[-1], labels=labels))
    if name in _ONLY_PLACES:
        return
    for value in (*args, *kwargs.values()):
        if isinstance(value, Measured):
            for origin in value.origins:
                origin.keep_size()


def _numbers_in(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _numbers_in(value)
        elif isinstance(value, slice):
            yield from (value.start, value.stop)
        else:
            yield value


def _plain(number: Any) -> Any:
    if isinstance(number, MeasuredInt):
        return int.__int__(number)
    return float.__float__(number) if isinstance(number, MeasuredFloat) else number


def _remembering(compute: Callable[..., Any], *, turned: bool = False) -> Callable[..., Any]:
    """Make an operator between numbers whose result remembers the sizes of both."""

    def method(self: Measured, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        pair = (_plain(self), _plain(other))
        more = other.origins if isinstance(other, Measured) else ()
        left, right = reversed(pair) if turned else pair
        if compute is operator.floordiv and right and left % right:
            # Sizes that share a quotient cannot be told apart by it.
            for origin in (*self.origins, *more):
                origin.keep_size(_WITH_REST)
        return measured(compute(left, right), (*self.origins, *more))

    return method


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    for _kind in (MeasuredInt, MeasuredFloat):
        setattr(_kind, f"__{_name}__", _remembering(getattr(operator, _name)))
        setattr(_kind, f"__r{_name}__", _remembering(getattr(operator, _name), turned=True))
