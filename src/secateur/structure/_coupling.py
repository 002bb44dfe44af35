"""How labels meet: element-wise coupling, reductions and contractions.

These three operations carry all arithmetic rules. Shapes are virtual: a matrix product is a
coupling of its operands over (batch, n, k, m) followed by a reduction of k.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from secateur.structure._label import Ids, Label
from secateur.structure._tape import Product, Tape


@dataclass(frozen=True, slots=True)
class Operand:
    """Labels and shape of one operand, aligned to the result's axes.

    Attributes:
        labels: Labels with as many axes as the result.
        shape: Size along each axis of the result; 1 where the operand broadcasts.
    """

    labels: tuple[Label, ...]
    shape: tuple[int, ...]

    def covers(self, axis: int) -> bool:
        """Tell whether some label varies on an axis."""
        return any(axis in label.axes for label in self.labels)


def aligned(labels: Iterable[Label], shape: Sequence[int], ndim: int) -> Operand:
    """Right-align an operand to ``ndim`` axes, as broadcasting does.

    Args:
        labels: Labels of the operand.
        shape: Its shape.
        ndim: Number of axes of the result.

    Returns:
        The operand in the result's frame.
    """
    lead = ndim - len(shape)
    if lead == 0:
        return Operand(tuple(labels), tuple(shape))
    target = [lead + a for a in range(len(shape))]
    return Operand(tuple(label.moved(target, ndim) for label in labels), (1,) * lead + tuple(shape))


def couple(tape: Tape, operands: Sequence[Operand]) -> tuple[Label, ...]:
    """Couple operands element by element.

    Args:
        tape: Where edges and freezes go.
        operands: Operands in the result's frame.

    Returns:
        Labels of the result, on disjoint sets of axes unless they are independent.
    """
    if _alike(operands):
        result, *rest = (operand.labels[0] for operand in operands)
        for label in rest:
            tape.join(label.ids, result.ids)
            result = label if label.ids.size >= result.ids.size else result
        return (result,)
    merged: list[Label] = []
    for k, operand in enumerate(operands):
        others = [other for i, other in enumerate(operands) if i != k]
        for label in operand.labels:
            stretched = _without_broadcast_axes(tape, label, operand, others)
            left = stretched and _without_constant_axes(tape, stretched, others)
            if left is not None:
                merged = _merged(tape, merged, left)
    return tuple(merged)


def _alike(operands: Sequence[Operand]) -> bool:
    """Recognise what most operations are: one label each, on the same axes of the same size."""
    if any(len(operand.labels) != 1 for operand in operands):
        return False
    axes, shape = operands[0].labels[0].axes, operands[0].shape
    return all(
        operand.labels[0].axes == axes and all(operand.shape[a] == shape[a] for a in axes)
        for operand in operands[1:]
    )


def _without_broadcast_axes(
    tape: Tape, label: Label, operand: Operand, others: Sequence[Operand]
) -> Label | None:
    """Drop labelled axes of size 1 that are stretched over another operand's positions."""
    stretched = frozenset(
        axis
        for axis in label.axes
        if operand.shape[axis] == 1 and any(other.shape[axis] > 1 for other in others)
    )
    if not stretched:
        return label
    if stretched == label.axes:
        tape.freeze([label], "is a single value applied to every unit")
        return None
    return label.without(stretched)


def _without_constant_axes(tape: Tape, label: Label, others: Sequence[Operand]) -> Label | None:
    """Unite a label along axes on which another operand has content but no units."""
    bad = [
        axis
        for axis in label.axes
        if any(other.shape[axis] > 1 and not other.covers(axis) for other in others)
    ]
    if len(bad) == len(label.axes):
        tape.freeze([label], "meets a tensor of fixed size element by element")
        return None
    return tape.join_along(label, bad)


def _merged(tape: Tape, merged: list[Label], label: Label) -> list[Label]:
    """Couple one more label with those of the result so far."""
    result: list[Label] = []
    for other in merged:
        shared = label.axes & other.axes
        if not shared:
            result.append(other)
        elif label.axes == other.axes:
            tape.join(label.ids, other.ids)
            label = label if label.ids.size >= other.ids.size else other
        else:
            big, small = (label, other) if len(label.axes) > len(other.axes) else (other, label)
            label = _nested(tape, big, small, shared)
    return [*result, label]


def _nested(tape: Tape, big: Label, small: Label, shared: frozenset[int]) -> Label:
    """Couple labels that share some axes only."""
    if big.major in shared:
        first = big.without(big.axes - shared)
        tape.join_along(big, big.axes - shared)
        rest = tape.join_along(small, small.axes - shared)
        tape.join(first.ids, rest.ids)
        return first
    tape.freeze([small], "runs along the inner part of a larger unit")
    return tape.join_along(big, shared)


def reduced(
    tape: Tape, labels: Iterable[Label], axes: Iterable[int], message: str
) -> tuple[Label, ...]:
    """Reduce over axes with an operation that does not survive the removal of positions.

    Args:
        tape: Where edges and freezes go.
        labels: Labels of the operand.
        axes: Axes that are reduced; they keep their place, at size 1.
        message: Why a label that lies on these axes alone becomes fixed.

    Returns:
        What is left of the labels.
    """
    gone = frozenset(axes)
    result = []
    for label in labels:
        if label.axes <= gone:
            tape.freeze([label], message)
        else:
            result.append(tape.join_along(label, gone))
    return tuple(result)


def contract(
    tape: Tape,
    left: Operand,
    right: Operand,
    over: frozenset[int],
    weight: int | None,
    factors: tuple[int | None, ...] = (),
) -> tuple[Label, ...]:
    """Multiply two operands and sum over some axes.

    Args:
        tape: Where edges, freezes and MACs go.
        left: First operand.
        right: Second operand.
        over: Axes that are summed.
        weight: 0 or 1 where the left or right operand is a parameter as it is stored: zeroing its
            slices silences the units that are summed. None where both are computed.
        factors: Nodes that made the operands, where both are computed.

    Returns:
        Labels of the result, still in the frame of the operands.
    """
    shape = [max(a, b) for a, b in zip(left.shape, right.shape, strict=True)]
    _check_sizes(left, right, over)
    parameter = () if weight is None else (left, right)[weight].labels
    for operand, partner in ((left, right), (right, left)):
        loose = [x for x in operand.labels if x.axes <= over and not _meets(x, partner)]
        tape.freeze(loose, "multiplies a tensor of fixed size")
    labels = couple(tape, (left, right))
    charge(tape, labels, shape)
    result = []
    for label in labels:
        if not label.axes <= over:
            if weight is None:
                tape.multiplied.append(label.ids.ravel())
            result.append(tape.join_along(label, over))
        elif weight is None and tape.inside is not None and not _is_proven(tape):
            node = tape.nodes[-1].index
            tape.products.append(Product(tape, node, factors, label.ids.ravel()))
        elif weight is None:
            tape.freeze([label], "is summed in a product of two computed tensors")
    for label in parameter:
        if label.axes <= over:
            tape.consumed.append(label.ids.ravel())
    return tuple(result)


def _check_sizes(left: Operand, right: Operand, over: frozenset[int]) -> None:
    """Refuse what the real product would refuse: the results of rules are made by hand."""
    for axis in over:
        if left.shape[axis] != right.shape[axis]:
            raise RuntimeError(
                f"a product sums over {left.shape[axis]} and {right.shape[axis]} positions, "
                "expected equally many"
            )


def _is_proven(tape: Tape) -> bool:
    """Tell whether a module of `secateur.nn` is running: its heads stay as wide as it was built."""
    call = tape.nodes[-1].call
    return call >= 0 and tape.calls[call].proven


def charge(tape: Tape, labels: Sequence[Label], shape: Sequence[int]) -> None:
    """Book the product of a shape's sizes as MACs, labelled axes as factors."""
    factors: list[Ids] = []
    taken: set[int] = set()
    for label in sorted(labels, key=lambda label: -len(label.axes)):
        if taken.isdisjoint(label.axes):
            taken |= label.axes
            axes = sorted(label.axes)
            full = [shape[a] if a in label.axes else 1 for a in range(len(shape))]
            factors.append(np.broadcast_to(label.ids, full) if axes else label.ids)
    coefficient = 1.0
    for axis, size in enumerate(shape):
        if axis not in taken:
            coefficient *= size
    tape.charge(coefficient, factors)


def _meets(label: Label, partner: Operand) -> bool:
    return any(partner.covers(axis) for axis in label.axes)
