"""Indexing by tensors: gathers, scatters and embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from secateur.structure._label import Label
from secateur.structure.rules._registry import Call, info_of, rule


@rule("embedding")
def embedding(call: Call) -> Tensor:
    """Look rows up: rows are fixed, columns are the units of the result."""
    weight, index = call.args[0], call.args[1]
    out = call.run()
    labels = []
    for label in info_of(weight).labels:
        if label.axes == {0}:
            call.tape.freeze([label], "is looked up by number")
        else:
            left = call.tape.join_along(label, [0])
            labels.append(left.moved([index.ndim - 1, index.ndim], out.ndim))
    return call.put(out, labels)


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
    return call.put(call.run(), _fixed_along(call, call.labels(), [axis]))


@rule("gather")
def gather(call: Call) -> Tensor:
    """Pick positions of one axis, differently for every place."""
    x = call.args[0]
    axis = call.args[1] % x.ndim
    out = call.run()
    labels = _fixed_along(call, call.labels(), [axis])
    shorter = [a for a in range(x.ndim) if out.shape[a] != x.shape[a]]
    return call.put(out, _fixed_along(call, labels, shorter))


@rule("index", "_unsafe_index")
def index(call: Call) -> Tensor:
    """Advanced indexing: indexed axes are fixed, the others keep their units."""
    x, indices = call.args[0], call.args[1]
    out: Tensor = call.run()
    indexed = [a for a, i in enumerate(indices) if i is not None]
    labels = _fixed_along(call, call.labels(), indexed)
    width = _broadcast_ndim([i for i in indices if i is not None])
    consecutive = indexed == list(range(indexed[0], indexed[-1] + 1))
    if any(indices[a].dtype.is_floating_point or _is_mask(indices[a]) for a in indexed):
        call.tape.freeze(labels, "is picked by a mask whose size depends on the data")
        return out
    first = indexed[0] if consecutive else 0
    target = []
    place = 0 if first else width
    for axis in range(x.ndim):
        if axis == first and consecutive:
            place = axis + width
        if axis in indexed:
            target.append(-1)
            continue
        target.append(place)
        place += 1
    return call.put(out, [y.moved(target, out.ndim) for y in labels])


def _broadcast_ndim(tensors: Sequence[Tensor]) -> int:
    return max(t.ndim for t in tensors)


def _is_mask(tensor: Tensor) -> bool:
    return not tensor.dtype.is_floating_point and str(tensor.dtype) in {"torch.bool", "torch.uint8"}


def _fixed_along(call: Call, labels: Iterable[Label], axes: Sequence[int]) -> list[Label]:
    """Fix labels on some axes alone; unite joint ones along them."""
    gone = frozenset(axes)
    result = []
    for label in labels:
        if label.axes <= gone:
            call.tape.freeze([label], "is picked by number")
        else:
            result.append(call.tape.join_along(label, gone))
    return result
