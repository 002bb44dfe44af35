"""Mixtures of experts: products whose weight is chosen row by row, and sums into chosen rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from secateur.structure._coupling import Operand, aligned, contract, couple
from secateur.structure._label import Label
from secateur.structure._tape import Info
from secateur.structure.rules._contraction import multiply
from secateur.structure.rules._references import pick
from secateur.structure.rules._registry import (
    Call,
    attach_info,
    empty_like_shape,
    info_of,
    rule,
)

_BLOCK = 8
"""Positions of a width that leave together: 16 bytes of the smallest type."""


@rule("_grouped_mm")
def grouped_product(call: Call) -> Tensor:
    """Multiply rows by the matrix of the group they belong to, which the data decide.

    Groups that are counted by choices of units are these units. PyTorch's kernel refuses matrices
    whose rows are no multiple of 16 bytes, so the positions of a width leave eight at a time, which
    is as many in every type it takes.

    Args:
        call: The call that is being traced.

    Returns:
        The products, ``[rows, outer]``.

    Raises:
        RuntimeError: The sizes do not fit.
    """
    rows, weights = call.args[:2]
    for label in (*call.labels(), *info_of(weights).labels):
        _unite_blocks(call, label)
    if rows.ndim == 3 and weights.ndim == 3:
        out = empty_like_shape(rows, (*rows.shape[:2], weights.shape[2]))
        return call.put(out, multiply(call, rows, weights, 3))
    if rows.ndim != 2 or weights.ndim != 3 or rows.shape[1] != weights.shape[1]:
        raise RuntimeError(
            f"a grouped product got {tuple(rows.shape)} and {tuple(weights.shape)}, expected "
            "(rows, inner) and (groups, inner, outer)"
        )
    left = tuple(x.moved((0, 1), 3) for x in call.labels())
    right = tuple(
        x.moved((0, 1, 2), 3) for x in _same_in_every_group(call, weights, call.arg(2, "offs"))
    )
    stored = info_of(weights).tensor is not None and info_of(rows).tensor is None
    labels = contract(
        call.tape,
        Operand(left, (*rows.shape, 1)),
        Operand(right, (1, *weights.shape[1:])),
        frozenset((1,)),
        1 if stored else None,
    )
    out = empty_like_shape(rows, (rows.shape[0], weights.shape[2]))
    return call.put(out, [x.moved((0, -1, 1), 2) for x in labels])


def _unite_blocks(call: Call, label: Label) -> None:
    """Let the positions of a width leave by eight; a width that is no multiple of eight stays."""
    width = max(label.axes)
    size = label.ids.shape[width]
    if width == 0:
        return
    if size % _BLOCK or len(label.axes) > 1:
        message = "is a width of a grouped product, which only runs at multiples of eight"
        call.tape.freeze([label], message)
        return
    blocks = label.ids.reshape(-1, _BLOCK)
    call.tape.join(blocks, blocks[:, :1])
    call.tape.blocks.append(blocks.ravel())


def _same_in_every_group(call: Call, weights: Tensor, ends: Tensor | None) -> list[Label]:
    """Follow what lies on the axis of groups, and drop that axis from the rest."""
    groups = [] if ends is None else [x for x in info_of(ends).labels if x.axes == {0}]
    result = []
    for label in info_of(weights).labels:
        if label.axes != {0}:
            result.append(call.tape.join_along(label, (0,)))
        elif groups and groups[0].ids.size == label.ids.size:
            pick(call.tape, weights, label, groups[0].ids.ravel())
            groups = []
        else:
            call.tape.freeze([label], "is chosen by the data, one group for each row")
    call.tape.freeze(groups, "says where groups of rows end")
    return result


@rule("index_add", "index_add_")
def add_rows(call: Call) -> Any:
    """Add rows to chosen rows: the chosen axis is fixed, units on others are coupled."""
    target, source = call.args[0], call.args[3]
    axis = call.args[1] % target.ndim
    operands = []
    for tensor in (target, source):
        shape = list(tensor.shape)
        shape[axis] = 1
        left = []
        for label in info_of(tensor).labels:
            if label.axes == {axis}:
                call.tape.freeze([label], "is picked by number")
            else:
                left.append(call.tape.join_along(label, (axis,)))
        operands.append(aligned(left, shape, target.ndim))
    labels = couple(call.tape, operands)
    if call.func._schema.is_mutable:
        known = info_of(target)
        attach_info(target, Info(labels=labels, node=known.node))
        return target
    return call.put(call.run(), labels)
