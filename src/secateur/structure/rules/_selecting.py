"""Single positions of an axis: picked by number, or all of them one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from secateur.structure._label import Label, outermost
from secateur.structure.rules._indexing import picked_along
from secateur.structure.rules._registry import Call, info_of, rule


@rule("select")
def select(call: Call) -> Tensor:
    """Pick one index of an axis."""
    source = call.args[0]
    axis = call.args[1] % source.ndim
    out = call.run()
    index = call.args[2] % source.shape[axis]
    for label in call.labels():
        if len(label.axes) > 1:
            call.tape.join_along(label, [axis])
    labels: Sequence[Label] = call.labels()
    number = _reference(call)
    if axis == 0 and number is not None:
        labels = picked_along(call, labels, {0: number})
    return call.keep_name(call.put(out, _picked(call, labels, axis, index)))


def _reference(call: Call) -> Tensor | None:
    """Return the number that refers to a unit, where the model's own code indexes with one alone.

    PyTorch turns a tensor of one whole number into a plain number before it selects.
    """
    name, args = call.tape.function
    if name != "__getitem__" or len(args) < 2 or args[0] is not call.args[0]:
        return None
    index = args[1]
    if not isinstance(index, Tensor) or index.ndim > 0 or info_of(index).refers is None:
        return None
    return index


def _picked(call: Call, labels: Sequence[Label], axis: int, index: int) -> list[Label]:
    """Take one index of an axis; a joint label is recorded, one on that axis alone is fixed."""
    result = []
    for label in labels:
        target = [a if a < axis else a - 1 for a in range(label.ids.ndim)]
        target[axis] = -1
        if label.axes == {axis}:
            call.tape.freeze([label], "is picked at a fixed position")
            continue
        taken = label
        if axis in label.axes:
            call.tape.joints.append(label)
            left = label.axes - {axis}
            ids = label.ids.take([min(index, label.ids.shape[axis] - 1)], axis=axis)
            taken = Label(ids, left, label.major if label.major in left else outermost(left))
        result.append(taken.moved(target, label.ids.ndim - 1))
    return result


@rule("unbind")
def unbind(call: Call) -> Any:
    """Split an axis into single indices."""
    axis = call.arg(1, "dim", 0) % call.args[0].ndim
    outs = call.run()
    if any(axis in label.axes and len(label.axes) > 1 for label in call.labels()):
        call.tape.doubts.append(call.tape.nodes[-1])
    for index, out in enumerate(outs):
        call.keep_name(call.put(out, _picked(call, call.labels(), axis, index)))
    return outs
