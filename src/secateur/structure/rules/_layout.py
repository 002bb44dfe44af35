"""Layout operations: the data keeps its values and changes its place, and labels follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from secateur.structure._label import Label, reshaped, split_axes
from secateur.structure._measured import SIZED, flat_sizes
from secateur.structure._split import Split
from secateur.structure.rules._registry import Call, positive_axes, rule


@rule(
    "alias",
    "clone",
    "contiguous",
    "detach",
    "detach_",
    "_to_copy",
    "lift_fresh",
    "lift_fresh_copy",
    "lift",
    "_conj",
    "conj_physical",
)
def same_place(call: Call) -> Tensor:
    """Return the same data."""
    return call.keep_name(call.put(call.run(), call.labels()))


@rule("view", "_unsafe_view", "_reshape_alias", "reshape")
def view(call: Call) -> Tensor:
    """Reshape; joint labels that arise are recorded for coarsening."""
    source = call.args[0]
    out = call.run()
    last = call.tape.last
    labels = []
    for before in call.labels():
        after = reshaped(before, source.shape, out.shape, last)
        is_split = record_joint(call, before, after)
        labels.append(_split(call, after, source.shape, out.shape) if is_split else after)
    call.tape.freeze([x for x in labels if not x.axes], "is a single value that loses its axis")
    labels = _one_on_each_axis(call, [x for x in labels if x.axes])
    doubt_sizes(call, labels)
    return call.keep_name(call.put(out, labels))


def _split(call: Call, label: Label, old: Sequence[int], new: Sequence[int]) -> Label:
    """Note an axis that is split; where it is into heads, and units lie inside, unite the heads."""
    tape, node = call.tape, call.tape.nodes[-1]
    axes = sorted(label.axes & split_axes(old, new))
    if len(axes) < 2 or (node.call >= 0 and tape.calls[node.call].proven):
        return label
    tape.splits.append(Split(label, tuple(axes), node.place))
    if tape.inside is None or node.place not in tape.inside:
        return label
    return tape.join_along(label, axes[:-1])


def _one_on_each_axis(call: Call, labels: list[Label]) -> list[Label]:
    """Where axes with units of their own are merged, keep one kind of units and fix the other.

    Such are the heads of a parameter ``[inputs, heads, width]``, and the positions inside a head.
    What comes first in the parameter is the larger unit; operations such as `einsum` merge axes in
    any order.

    Args:
        call: The call that is being traced.
        labels: Labels after axes were merged.

    Returns:
        Labels on disjoint sets of axes.
    """
    if len(labels) < 2 or len({a for y in labels for a in y.axes}) == sum(
        len(y.axes) for y in labels
    ):
        return labels
    kept: list[Label] = []
    for label in sorted(labels, key=lambda y: int(y.ids.min())):
        if any(label.axes & other.axes for other in kept):
            call.tape.freeze([label], "is a position inside larger units that are flattened")
        else:
            kept.append(label)
    return kept


def record_joint(call: Call, before: Label, after: Label) -> bool:
    """Remember a label that came to vary on more axes than before, and say whether it did."""
    is_joint = len(after.axes) > len(before.axes)
    if is_joint:
        call.tape.joints.append(after)
    return is_joint


def doubt_sizes(call: Call, labels: Sequence[Label]) -> None:
    """Note that the model itself gave labelled axes a size, which it may keep as a number."""
    name, arguments = call.tape.function
    node = call.tape.nodes[-1]
    # What runs outside of any function of PyTorch is scripted, and sizes are numbers there.
    if (name and name not in SIZED) or (node.call >= 0 and call.tape.calls[node.call].proven):
        return
    sizes = flat_sizes(arguments[1:])
    if name in ("view", "reshape", "expand") and all(
        axis < len(sizes) and sizes[axis] == -1 for label in labels for axis in label.axes
    ):
        return
    if labels:
        call.tape.doubts.append(node)


@rule("t", "numpy_T", "mT", "adjoint")
def transpose_matrix(call: Call) -> Tensor:
    """Swap the last two axes."""
    out = call.run()
    if out.ndim < 2:
        return call.put(out, call.labels())
    target = [*range(out.ndim - 2), out.ndim - 1, out.ndim - 2]
    return call.keep_name(call.put(out, [x.moved(target, out.ndim) for x in call.labels()]))


@rule("transpose", "transpose_", "swapaxes", "swapdims")
def transpose(call: Call) -> Tensor:
    """Swap two axes."""
    out: Tensor = call.run()
    if out.ndim == 0:
        return out
    a, b = call.args[1] % out.ndim, call.args[2] % out.ndim
    target = list(range(out.ndim))
    target[a], target[b] = b, a
    return call.keep_name(call.put(out, [x.moved(target, out.ndim) for x in call.labels()]))


@rule("permute")
def permute(call: Call) -> Tensor:
    """Reorder axes."""
    out = call.run()
    target = [0] * out.ndim
    for new, old in enumerate(call.args[1]):
        target[old % out.ndim] = new
    return call.keep_name(call.put(out, [x.moved(target, out.ndim) for x in call.labels()]))


@rule("unsqueeze", "unsqueeze_")
def unsqueeze(call: Call) -> Tensor:
    """Insert an axis of size 1, which carries no label."""
    ndim = call.args[0].ndim
    place = call.args[1] % (ndim + 1)
    target = [a if a < place else a + 1 for a in range(ndim)]
    out = call.run()
    return call.keep_name(call.put(out, [x.moved(target, ndim + 1) for x in call.labels()]))


@rule("expand", "broadcast_to")
def expand(call: Call) -> Tensor:
    """Repeat axes of size 1 without copying; leading axes may be added."""
    source = call.args[0]
    out = call.run()
    lead = out.ndim - source.ndim
    target = [lead + a for a in range(source.ndim)]
    labels = []
    for label in call.labels():
        stretched = frozenset(
            a for a in label.axes if source.shape[a] == 1 and out.shape[lead + a] > 1
        )
        if stretched == label.axes:
            call.tape.freeze([label], "is a single value applied to every unit")
            continue
        labels.append(label.without(stretched).moved(target, out.ndim))
    doubt_sizes(call, labels)
    return call.keep_name(call.put(out, labels))


def part_of(call: Call, label: Label, axis: int, parts: int, which: int) -> Label:
    """Take one of several equal parts of a labelled axis, and record (part, position) as joint."""
    length = label.ids.shape[axis] // parts
    old = list(label.ids.shape)
    new = [*old[:axis], parts, length, *old[axis + 1 :]]
    ids = label.ids.reshape(new)
    axes = frozenset(a if a <= axis else a + 1 for a in label.axes) | {axis, axis + 1}
    if parts > 1:
        call.tape.joints.append(Label(ids, axes, axis))
    return Label(ids.take(which, axis=axis), label.axes, label.major)


def _pieces(call: Call, label: Label, axis: int, lengths: Sequence[int]) -> list[Label]:
    """Cut a labelled axis into parts of given lengths, each of which keeps its own units."""
    if len(label.axes) > 1:
        call.tape.joints.append(label)
    edges = np.cumsum(lengths)[:-1]
    if len(label.axes) == 1:
        call.tape.cuts += [label.ids.ravel()[:end] for end in edges if 0 < end < label.ids.size]
    return [Label(ids, label.axes, label.major) for ids in np.split(label.ids, edges, axis=axis)]


def join_parts(call: Call, label: Label, axis: int, parts: int) -> None:
    """Unite the same position of several equal parts, whose number the model's code relies on."""
    old = label.ids.shape
    ids = label.ids.reshape([*old[:axis], parts, -1, *old[axis + 1 :]])
    call.tape.join(ids, ids.take([0], axis=axis))


@rule("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk")
def split(call: Call) -> Any:
    """Cut an axis into parts, equal ones or of given lengths."""
    source = call.args[0]
    axis = call.arg(2, "dim", 0) % source.ndim
    outs = call.run()
    lengths = [out.shape[axis] for out in outs]
    equal = call.tape.reads_as_equal(len(set(lengths)) == 1)
    doubt_sizes(call, [label for label in call.labels() if axis in label.axes])
    counted = call.tape.function[0] == "chunk" or isinstance(call.args[1], (list, tuple))
    per_out: list[list[Label]] = [[] for _ in outs]
    for label in call.labels():
        cut = axis in label.axes
        if cut and equal and counted:
            join_parts(call, label, axis, len(outs))
        if cut and not equal:
            pieces = _pieces(call, label, axis, lengths)
        elif cut:
            pieces = [part_of(call, label, axis, len(outs), k) for k in range(len(outs))]
        else:
            pieces = [label] * len(outs)
        for labels, piece in zip(per_out, pieces, strict=True):
            labels.append(piece)
    for out, labels in zip(outs, per_out, strict=True):
        call.keep_name(call.put(out, labels))
    return outs


@rule("flip", "roll", "rot90")
def rearrange(call: Call) -> Tensor:
    """Reverse or rotate axes; on a labelled axis the positions are no longer independent."""
    source = call.args[0]
    if call.func._schema.name == "aten::roll":
        axes = positive_axes(call.arg(2, "dims") or None, source.ndim)
    elif call.func._schema.name == "aten::rot90":
        axes = positive_axes(call.arg(2, "dims", [0, 1]), source.ndim)
    else:
        axes = positive_axes(call.args[1], source.ndim)
    labels = []
    for label in call.labels():
        if label.axes <= axes:
            call.tape.freeze([label], "is reversed or rotated along its own axis")
        else:
            labels.append(call.tape.join_along(label, axes))
    return call.keep_name(call.put(call.run(), labels))


@rule("repeat", "tile")
def repeat(call: Call) -> Tensor:
    """Tile a tensor; ids are tiled along labelled axes."""
    source, repeats = call.args[0], list(call.args[1])
    out = call.run()
    lead = out.ndim - source.ndim
    target = [lead + a for a in range(source.ndim)]
    labels = []
    for label in call.labels():
        moved = label.moved(target, out.ndim)
        times = [r if a in moved.axes else 1 for a, r in enumerate(repeats)]
        labels.append(Label(np.tile(moved.ids, times), moved.axes, moved.major))
    return call.put(out, labels)


@rule("repeat_interleave")
def repeat_interleave(call: Call) -> Tensor:
    """Repeat each index of an axis a fixed number of times."""
    source, times = call.args[0], call.arg(1, "repeats")
    axis = call.arg(2, "dim")
    out: Tensor = call.run()
    if not isinstance(times, int) or axis is None:
        call.tape.freeze(call.labels(), "is repeated a varying number of times")
        return out
    axis %= source.ndim
    return call.put(
        out,
        [
            Label(x.ids.repeat(times, axis=axis) if axis in x.axes else x.ids, x.axes, x.major)
            for x in call.labels()
        ],
    )


@rule("as_strided", "unfold", "diagonal", "tril", "triu")
def strided(call: Call) -> Tensor:
    """Address memory in a pattern that labels cannot follow on labelled axes of equal shape."""
    source = call.args[0]
    out: Tensor = call.run()
    name = call.func._schema.name.removeprefix("aten::")
    if name in {"tril", "triu"} and not any(
        x.axes & {source.ndim - 1, source.ndim - 2} for x in call.labels()
    ):
        return call.put(out, call.labels())
    if name.startswith("as_strided") and _same_order(call, source):
        return call.put(out, call.labels())
    call.tape.freeze(call.labels(), "is read in a pattern that units cannot follow")
    return out


def _same_order(call: Call, source: Tensor) -> bool:
    """Tell whether strides address every element where it already is."""
    size, stride = call.args[1], call.args[2]
    if list(size) != list(source.shape) or call.arg(3, "storage_offset"):
        return False
    return all(a == b or n == 1 for n, a, b in zip(size, stride, source.stride(), strict=True))
