"""Choices among units: a router weighs its experts against each other and takes the best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from secateur.structure._choice import Choice
from secateur.structure._coupling import reduced
from secateur.structure._label import Label
from secateur.structure.rules._reduction import reduction
from secateur.structure.rules._references import refer
from secateur.structure.rules._registry import Call, rule

_WEIGHED = "is normalised or ordered along its own axis"
_CHOSEN = (
    "is chosen among all units of this axis, which share what is chosen and how much it weighs"
)


@rule("_softmax", "softmax", "_safe_softmax", "cumsum")
def weigh(call: Call) -> Any:
    """Weigh positions of an axis against each other, or count them up: they stay unless chosen."""
    x = call.args[0]
    axis = call.args[1] % max(x.ndim, 1)
    labels = []
    for label in call.labels():
        if label.axes == {axis}:
            call.tape.mark_shared(label, _WEIGHED)
            _note(call, label)
            labels.append(label)
        else:
            labels += reduced(call.tape, [label], [axis], _WEIGHED)
    return call.put(call.run(), labels)


@rule("topk")
def choose(call: Call) -> Any:
    """Take the largest few positions of an axis; their numbers refer to its units."""
    return _chosen(call, call.arg(2, "dim", -1), call.args[1], keepdim=True)


@rule("argmax", "argmin", "max", "min")
def choose_one(call: Call) -> Any:
    """Take the largest position of an axis; without an axis, or of two tensors, it is no choice."""
    axis = call.arg(1, "dim")
    if not isinstance(axis, int) or isinstance(axis, bool):
        return reduction(call)
    return _chosen(call, axis, 1, keepdim=bool(call.arg(2, "keepdim", False)))


def _chosen(call: Call, axis: int, count: int, *, keepdim: bool) -> Any:
    """Choose along an axis.

    Args:
        call: The call that is being traced.
        axis: The axis.
        count: How many positions are taken.
        keepdim: Whether the axis stays, at the size of the count.

    Returns:
        What the operation returns: largest values and their numbers, or the numbers alone.
    """
    x = call.args[0]
    axis %= max(x.ndim, 1)
    units = [label for label in call.labels() if label.axes == {axis}]
    others = [label for label in call.labels() if label.axes != {axis}]
    for label in units:
        call.tape.mark_inexact(label, _CHOSEN)
        call.tape.choices.append(Choice(label.ids.ravel(), count))
        _note(call, label)
    left = reduced(call.tape, others, [axis], _WEIGHED)
    target = [a - (not keepdim and a > axis) for a in range(x.ndim)]
    target[axis] = axis if keepdim else -1
    ndim = x.ndim if keepdim else x.ndim - 1
    out = call.run()
    results: Sequence[Tensor] = (out,) if isinstance(out, Tensor) else out
    for result in results:
        call.put(result, [label.moved(target, ndim) for label in left])
    if len(units) == 1:
        refer(results[-1], units[0].ids.ravel())
    return out


def _note(call: Call, label: Label) -> None:
    """Remember the call where the model's own code makes it, so that it can be made of less."""
    if call.tape.function[0] == call.func._schema.name.removeprefix("aten::").strip("_"):
        call.tape.note_statistic(label)
