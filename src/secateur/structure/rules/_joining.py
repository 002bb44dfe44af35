"""Concatenation and stacking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from secateur.structure._coupling import Operand, couple
from secateur.structure._label import Ids, Label
from secateur.structure._tape import CONSTANT_ID
from secateur.structure.rules._registry import Call, info_of, rule


@rule("cat", "concat", "concatenate")
def concatenate(call: Call) -> Tensor:
    """Join tensors along an axis; on other axes their units are coupled."""
    tensors = [t for t in call.args[0] if not (t.ndim == 1 and t.shape[0] == 0)]
    axis = call.arg(1, "dim", 0)
    out = call.run()
    axis %= out.ndim
    return call.put(out, _joined(call, tensors, [info_of(t).labels for t in tensors], axis))


@rule("stack")
def stack(call: Call) -> Tensor:
    """Join tensors along a new axis."""
    tensors = call.args[0]
    out = call.run()
    axis = call.arg(1, "dim", 0) % out.ndim
    target = [a if a < axis else a + 1 for a in range(out.ndim - 1)]
    labels = [tuple(y.moved(target, out.ndim) for y in info_of(t).labels) for t in tensors]
    shapes = [[*t.shape[:axis], 1, *t.shape[axis:]] for t in tensors]
    operands = [Operand(own, tuple(shape)) for own, shape in zip(labels, shapes, strict=True)]
    return call.put(out, couple(call.tape, operands))


def _joined(
    call: Call, tensors: Sequence[Tensor], labels: Sequence[Sequence[Label]], axis: int
) -> list[Label]:
    """Concatenate the labels on the axis and couple the rest."""
    ndim = tensors[0].ndim
    across: list[Operand] = []
    pieces: list[Ids] = []
    for tensor, own in zip(tensors, labels, strict=True):
        shape = [1] * ndim
        shape[axis] = tensor.shape[axis]
        piece = np.full(shape, CONSTANT_ID, dtype=np.int64)
        rest = []
        for label in own:
            if label.axes == {axis}:
                piece = label.ids
            elif axis in label.axes:
                rest.append(call.tape.join_along(label, [axis]))
            else:
                rest.append(label)
        pieces.append(piece)
        flat = [*tensor.shape[:axis], 1, *tensor.shape[axis + 1 :]]
        across.append(Operand(tuple(rest), tuple(flat)))
    result = list(couple(call.tape, across))
    if any(piece.any() for piece in pieces):
        result.append(Label(np.concatenate(pieces, axis=axis), frozenset((axis,)), axis))
    return result
