"""Slices of an axis: one of equal parts, what lies before or after a cut, every so-manieth."""

from __future__ import annotations

from torch import Tensor

from secateur.structure._counted import tells
from secateur.structure._label import Label
from secateur.structure._told import slices_in
from secateur.structure.rules._layout import doubt_sizes, join_parts, part_of
from secateur.structure.rules._registry import Call, rule


@rule("slice")
def slice_axis(call: Call) -> Tensor:
    """Take a range of an axis, or every so-manieth position of it."""
    source = call.args[0]
    axis = call.arg(1, "dim", 0) % source.ndim
    size = source.shape[axis]
    start, step = call.arg(2, "start") or 0, call.arg(4, "step", 1)
    out = call.run()
    if out.shape == source.shape:
        return call.keep_name(call.put(out, call.labels()))
    start = min(max(start + size if start < 0 else start, 0), size)
    taken = range(start, start + step * out.shape[axis], step)
    labels = [
        _taken(call, label, axis, taken) if axis in label.axes else label for label in call.labels()
    ]
    doubt_sizes(call, [label for label in call.labels() if axis in label.axes])
    # Beside the units of a concatenation there may be none.
    found = [label for label in labels if label is not None and label.ids.any()]
    return call.keep_name(call.put(out, found))


def _taken(call: Call, label: Label, axis: int, taken: range) -> Label | None:
    """Follow a slice of a labelled axis.

    One of several equal parts is one by intent, unless the numbers that the model gives say what
    they count. Otherwise the positions on both sides of a cut have units of their own; whether it
    moves as they leave is found out at another size.

    Args:
        call: The call that is being traced.
        label: A label that varies on the axis.
        axis: The axis.
        taken: Positions that are taken.

    Returns:
        Its part; None where there is none.
    """
    size, length = label.ids.shape[axis], len(taken)
    is_range = taken.step == 1
    is_part = is_range and (not length or (size % length == 0 and taken.start % length == 0))
    if _is_by_intent(call, axis, is_part and not (length and _is_told(call, label, axis, taken))):
        if is_part and not length:
            left = label.without(frozenset((axis,)))
            return left if left.axes else None
        if is_part:
            join_parts(call, label, axis, size // length)
            return part_of(call, label, axis, size // length, taken.start // length)
    elif len(label.axes) == 1 and (is_range or length * taken.step == size):
        if is_range:
            ends = (end for end in (taken.start, taken.stop) if 0 < end < size)
            call.tape.cuts += [label.ids.ravel()[:end] for end in ends]
        else:
            _join_runs(call, label, axis, taken.step)
        return Label(label.ids.take(taken, axis=axis), label.axes, label.major)
    if len(label.axes) > 1:
        return call.tape.join_along(label, [axis])
    call.tape.freeze([label], "is cut at a fixed position")
    return None


def _is_by_intent(call: Call, axis: int, is_part: bool) -> bool:
    """Say whether the running slice takes one of several equal parts in the traced model.

    In a smaller model, what lies on both sides of a cut may come to be equally long.

    Args:
        call: The call that is being traced.
        axis: The axis.
        is_part: Whether it takes one of several equal parts here.

    Returns:
        What was read in the traced model.
    """
    tape = call.tape
    place = (tape.nodes[-1].module, f"{tape.function[0]}, axis {axis}", tape.ordinal)
    before = tape.equal_parts.get(place)
    if tape.is_retrace and before is not None:
        return before
    tape.equal_parts[place] = is_part or bool(before)
    return is_part


def _is_told(call: Call, label: Label, axis: int, taken: range) -> bool:
    """Tell whether positions inside heads are cut where numbers that know what they count say."""
    name, arguments = call.tape.function
    if call.tape.inside is None or name != "__getitem__":
        return False
    found = [entry for _, place, entry in slices_in(arguments[1], label.ids.ndim) if place == axis]
    ends = [entry.start for entry in found if taken.start > 0]
    ends += [entry.stop for entry in found if taken.stop < label.ids.shape[axis]]
    return bool(ends) and all(tells(end) for end in ends)


def _join_runs(call: Call, label: Label, axis: int, length: int) -> None:
    """Unite neighbours that every so-manieth position belongs to, as in interleaved pairs."""
    old = label.ids.shape
    ids = label.ids.reshape([*old[:axis], -1, length, *old[axis + 1 :]])
    call.tape.join(ids, ids.take([0], axis=axis + 1))
