"""Matrix products: coupling over (batch, n, k, m) and a reduction of k."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from secateur.structure._coupling import Operand, aligned, contract, couple
from secateur.structure._label import Label, axis_label
from secateur.structure.rules._registry import Call, empty_like_shape, info_of, rule


@rule("mm", "bmm", "matmul", "mv")
def product(call: Call) -> Tensor:
    """Multiply two matrices or batches of matrices."""
    left, right = call.args[0], call.args[1]
    if left.ndim == right.ndim and left.ndim in (2, 3):
        out = empty_like_shape(left, (*left.shape[:-1], right.shape[-1]))
    else:
        out = call.run()
    return call.put(out, multiply(call, left, right, out.ndim))


@rule("addmm", "baddbmm", "addmv", "addbmm")
def product_and_bias(call: Call) -> Tensor:
    """Multiply two matrices and add a third tensor under broadcasting."""
    bias, left, right = call.args[:3]
    if left.ndim == right.ndim:
        out = empty_like_shape(left, (*left.shape[:-1], right.shape[-1]))
    else:
        out = call.run()
    labels = multiply(call, left, right, out.ndim)
    operands = [aligned(info_of(bias).labels, bias.shape, out.ndim)]
    return call.put(out, couple(call.tape, [Operand(labels, tuple(out.shape)), *operands]))


@rule("linear")
def linear(call: Call) -> Tensor:
    """Multiply by a transposed weight and add a bias."""
    left, weight = call.args[0], call.args[1]
    bias = call.arg(2, "bias")
    out = empty_like_shape(left, (*left.shape[:-1], weight.shape[0]))
    turned = [x.moved((1, 0), 2) for x in info_of(weight).labels]
    labels = _multiplied(call, left, weight, turned, weight.shape[::-1], out.ndim)
    if bias is not None:
        operands = [Operand(labels, tuple(out.shape)), *call.operands([bias], out.ndim)]
        labels = couple(call.tape, operands)
    return call.put(out, labels)


def multiply(call: Call, left: Tensor, right: Tensor, ndim: int) -> tuple[Label, ...]:
    """Trace ``left @ right`` and return the labels of the result.

    Args:
        call: The call that is being traced.
        left: First factor, at least one axis.
        right: Second factor, at least one axis.
        ndim: Number of axes of the result.

    Returns:
        Labels of the product.
    """
    return _multiplied(call, left, right, info_of(right).labels, right.shape, ndim)


def _multiplied(
    call: Call,
    left: Tensor,
    right: Tensor,
    right_labels: Sequence[Label],
    right_shape: Sequence[int],
    ndim: int,
) -> tuple[Label, ...]:
    row = left.ndim > 1
    column = len(right_shape) > 1
    batch = ndim - row - column
    n, k, m = batch, batch + 1, batch + 2
    a = _framed(info_of(left).labels, left.shape, batch, ([n] if row else []) + [k])
    b = _framed(right_labels, right_shape, batch, [k] + ([m] if column else []))
    # Of two stored factors, such as learned queries and their projection, the second reads.
    weight = 1 if _stored(right) else (0 if _stored(left) else None)
    factors = (info_of(left).node, info_of(right).node)
    labels = contract(call.tape, a, b, frozenset((k,)), weight, factors)
    target = [*range(batch), -1, -1, -1]
    if row:
        target[n] = batch
    if column:
        target[m] = batch + row
    return tuple(x.moved(target, ndim) for x in labels)


def _framed(labels: Sequence[Label], shape: Sequence[int], batch: int, last: list[int]) -> Operand:
    """Place an operand in the frame (batch..., n, k, m)."""
    lead = len(shape) - len(last)
    target = [batch - lead + i for i in range(lead)] + last
    full = [1] * (batch + 3)
    for old, new in enumerate(target):
        full[new] = shape[old]
    return Operand(tuple(x.moved(target, batch + 3) for x in labels), tuple(full))


def _stored(tensor: Tensor) -> bool:
    return info_of(tensor).tensor is not None


@rule("bilinear")
def bilinear(call: Call) -> Tensor:
    """Multiply a weight ``[o, i, j]`` by two vectors; the frame is (n, o, i, j)."""
    first, second, weight = call.args[:3]
    bias = call.arg(3, "bias")
    o, i, j = weight.shape
    if first.shape[-1] != i or second.shape[-1] != j:
        raise RuntimeError(f"a bilinear weight of shape {[o, i, j]} does not fit its inputs")
    out = empty_like_shape(first, (*first.shape[:-1], o))
    n = first.shape[:-1].numel()
    stored = _stored(weight)
    left = Operand(_last_axis(call, first, 2), (n, 1, i, 1))
    own = tuple(y.moved((1, 2, 3), 4) for y in info_of(weight).labels)
    inner = contract(
        call.tape, left, Operand(own, (1, o, i, j)), frozenset((2,)), 1 if stored else None
    )
    half = Operand(inner, (n, o, 1, j))
    right = Operand(_last_axis(call, second, 3), (n, 1, 1, j))
    result = contract(call.tape, half, right, frozenset((3,)), 0 if stored else None)
    labels = tuple(
        axis_label(y.ids.ravel(), out.ndim - 1, out.ndim) for y in result if y.axes == {1}
    )
    if bias is not None:
        operands = [Operand(labels, tuple(out.shape)), *call.operands([bias], out.ndim)]
        labels = couple(call.tape, operands)
    return call.put(out, labels)


def _last_axis(call: Call, tensor: Tensor, place: int) -> tuple[Label, ...]:
    """Bring the labels on a tensor's last axis to a place in a frame of four; others are fixed."""
    labels = []
    for label in info_of(tensor).labels:
        if tensor.ndim - 1 in label.axes:
            left = call.tape.join_along(label, range(tensor.ndim - 1))
            labels.append(axis_label(left.ids.ravel(), place, 4))
        else:
            call.tape.freeze([label], "lies along the rows of a bilinear product")
    return tuple(labels)
