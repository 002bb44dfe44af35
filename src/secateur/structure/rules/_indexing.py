"""Indexing by tensors: gathers, scatters and embeddings.

An axis that is indexed keeps its positions, unless the numbers refer to the units that lie on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from secateur.structure._choice import Choice
from secateur.structure._coupling import Operand, couple
from secateur.structure._label import Label, axis_label
from secateur.structure._tape import Info
from secateur.structure.rules._references import fix_references, pick
from secateur.structure.rules._registry import Call, attach_info, empty_like_shape, info_of, rule


@rule("embedding")
def embedding(call: Call) -> Tensor:
    """Look rows up: columns are the units of the result."""
    index = call.args[1]
    out = call.run()
    left = picked_along(call, call.labels(), {0: index}, "is looked up by number")
    return call.put(out, [y.moved([index.ndim - 1, index.ndim], out.ndim) for y in left])


@rule("_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(call: Call) -> Any:
    """Look rows up and add, average or take the largest of those in a bag."""
    outs = call.run()
    labels = []
    for label in call.labels():
        if label.axes == {0}:
            call.tape.freeze([label], "is looked up by number")
        else:
            labels.append(call.tape.join_along(label, [0]))
    call.put(outs[0], labels)
    return outs


@rule("embedding_renorm_")
def embedding_renorm(call: Call) -> Tensor:
    """Shorten rows that are looked up to a largest norm, in place."""
    call.tape.freeze(call.labels(), "enters the norm that the rows of an embedding may have")
    table: Tensor = call.args[0]
    return table


@rule("index_select")
def index_select(call: Call) -> Tensor:
    """Pick positions of one axis by number."""
    x = call.args[0]
    axis = call.args[1] % x.ndim
    return call.put(call.run(), picked_along(call, call.labels(), {axis: call.args[2]}))


@rule("gather")
def gather(call: Call) -> Tensor:
    """Pick positions of one axis, differently for every place."""
    x = call.args[0]
    axis = call.args[1] % x.ndim
    out = call.run()
    labels = picked_along(call, call.labels(), {axis: call.args[2]})
    shorter = [a for a in range(x.ndim) if out.shape[a] != x.shape[a]]
    return call.put(out, _fixed_along(call, labels, shorter))


@rule("index", "_unsafe_index")
def index(call: Call) -> Tensor:
    """Advanced indexing: axes that are not indexed keep their units."""
    x, indices = call.args[0], call.args[1]
    out: Tensor = call.run()
    indexed = [a for a, i in enumerate(indices) if i is not None]
    labels = picked_along(call, call.labels(), {a: indices[a] for a in indexed})
    if any(indices[a].dtype.is_floating_point or _is_mask(indices[a]) for a in indexed):
        call.tape.freeze(labels, "is picked by a mask whose size depends on the data")
        return out
    target = _targets(x.ndim, indexed, _broadcast_ndim([i for i in indices if i is not None]))
    call.put(out, [y.moved(target, out.ndim) for y in labels])
    by_unit = any(info_of(indices[a]).refers is not None for a in indexed)
    return call.keep_name(out) if by_unit else out


@rule("index_put", "_unsafe_index_put")
def index_put(call: Call) -> Tensor:
    """Write to positions that are picked by number or by a mask; other axes keep their units."""
    x, indices, values = call.args[:3]
    indexed: list[int] = []
    width, axis = 1, 0
    for entry in indices:
        masked = entry is not None and _is_mask(entry)
        covered = entry.ndim if masked else 1
        if entry is not None:
            indexed += range(axis, axis + covered)
            width = max(width, 1 if masked else entry.ndim)
        axis += covered
    labels = _fixed_along(call, call.labels(), indexed)
    fix_references(call.tape, [info_of(entry) for entry in indices if entry is not None])
    target = _targets(x.ndim, indexed, width)
    ndim = max(x.ndim - len(indexed) + width, values.ndim)
    shape = [1] * ndim
    for old, new in enumerate(target):
        if new >= 0:
            shape[new] = x.shape[old]
    written = Operand(tuple(y.moved(target, ndim) for y in labels), tuple(shape))
    coupled = couple(call.tape, [written, *call.operands([values], ndim)])
    back = [target.index(new) if new in target else -1 for new in range(ndim)]
    kept = [y.moved(back, x.ndim) for y in coupled if all(back[a] >= 0 for a in y.axes)]
    call.tape.freeze([y for y in coupled if any(back[a] < 0 for a in y.axes)], "is put in places")
    if call.func._schema.is_mutable:
        attach_info(x, Info(labels=tuple(kept), node=info_of(x).node))
        return x  # type: ignore[no-any-return]
    return call.put(call.run(), kept)


def _targets(ndim: int, indexed: Sequence[int], width: int) -> list[int]:
    """Say where the axes of an indexed tensor go; -1 for those that are indexed.

    Args:
        ndim: Number of its axes.
        indexed: Those that are indexed.
        width: Number of axes that stand for these in the result: in place of the first one where
            they are neighbours, else in front.

    Returns:
        New place of each axis.
    """
    consecutive = list(indexed) == list(range(indexed[0], indexed[-1] + 1))
    first = indexed[0] if consecutive else 0
    target = []
    place = 0 if first else width
    for axis in range(ndim):
        if axis == first and consecutive:
            place = axis + width
        if axis in indexed:
            target.append(-1)
            continue
        target.append(place)
        place += 1
    return target


@rule("masked_select")
def masked_select(call: Call) -> Tensor:
    """Pick positions by a mask of the same shape, in one row."""
    x, mask = call.args[:2]
    value = info_of(mask).value
    call.tape.freeze((*call.labels(0), *call.labels(1)), "is picked by a mask of all positions")
    if value is None:
        return call.put(call.run(), ())
    return call.put(empty_like_shape(x, (int(value.expand(x.shape).sum()),)), ())


def _broadcast_ndim(tensors: Sequence[Tensor]) -> int:
    return max(t.ndim for t in tensors)


def _is_mask(tensor: Tensor) -> bool:
    return tensor.dtype in {torch.bool, torch.uint8}


def picked_along(
    call: Call,
    labels: Iterable[Label],
    indices: Mapping[int, Tensor],
    message: str = "is picked by number",
) -> list[Label]:
    """Follow numbers that refer to the units they pick; fix what other numbers pick.

    Args:
        call: The call that is being traced, whose first operand is picked from.
        labels: Labels of that operand.
        indices: Axis to what it is indexed with.
        message: Why an axis is fixed.

    Returns:
        Labels on the axes that are left, still in the operand's frame.
    """
    left = []
    referred = {axis: info_of(index).refers for axis, index in indices.items()}
    for label in labels:
        axis = min(label.axes)
        refers = referred.get(axis) if len(label.axes) == 1 else None
        if refers is None:
            left.append(label)
        else:
            pick(call.tape, call.args[0], label, refers)
            del referred[axis]
    loose = [Info(refers=refers) for refers in referred.values()]
    fix_references(call.tape, loose)
    return _fixed_along(call, left, list(indices), message)


def _fixed_along(
    call: Call,
    labels: Iterable[Label],
    axes: Sequence[int],
    message: str = "is picked by number",
) -> list[Label]:
    """Fix labels on some axes alone; unite joint ones along them."""
    gone = frozenset(axes)
    result = []
    for label in labels:
        if label.axes <= gone:
            call.tape.freeze([label], message)
        else:
            result.append(call.tape.join_along(label, gone))
    return result


@rule("scatter")
def scatter(call: Call) -> Any:
    """Put values in places along an axis by number: at the units that the numbers refer to."""
    target, axis, index = call.args[0], call.args[1] % max(call.args[0].ndim, 1), call.args[2]
    source = call.arg(3, "src", call.kwargs.get("value"))
    refers = info_of(index).refers
    given = info_of(source).labels if isinstance(source, Tensor) else ()
    call.tape.freeze((*given, *info_of(index).labels), "is put in places")
    own = [y for y in call.labels() if y.axes == {axis}]
    call.tape.freeze([y for y in call.labels() if y.axes != {axis}], "is put in places")
    if refers is None or len(refers) != target.shape[axis]:
        call.tape.freeze(own, "is put in places")
        fix_references(call.tape, [Info(refers=refers)])
        labels = []
    else:
        labels = [axis_label(refers, axis, target.ndim)]
        for label in own:
            call.tape.join(label.ids.ravel(), refers)
            if not isinstance(source, Tensor) and source == -math.inf:
                # What may not be chosen again leaves one more to be chosen.
                call.tape.choices.append(Choice(refers, index.shape[axis] + 1))
        if not own:
            call.tape.nodes[-1].labels += (axis_label(refers, 0, 1),)
            call.tape.doubts.append(call.tape.nodes[-1])
    if call.func._schema.is_mutable:
        attach_info(target, Info(labels=tuple(labels), node=info_of(target).node))
        return target
    return call.put(call.run(), labels)
