"""References: whole numbers that say which unit is meant, such as those of chosen experts.

They may be moved, compared with all positions, counted, and used to pick positions of axes that
hold the same units. Whoever computes with them in another way needs every unit where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from secateur.structure._choice import Pick
from secateur.structure._label import Ids, Label, axis_label
from secateur.structure._silence import VIEWS
from secateur.structure._tape import CONSTANT_ID, Info, Node, Tape
from secateur.structure.rules._registry import Call, attach_info, info_of

_MOVES = frozenset((
    "view", "_unsafe_view", "reshape", "permute", "transpose", "t", "squeeze", "unsqueeze",
    "expand", "slice", "select", "unbind", "split", "split_with_sizes", "alias", "detach", "clone",
    "_to_copy", "contiguous", "lift_fresh", "index", "index_select", "gather", "repeat", "sort",
    "flip", "roll", "chunk",
))  # fmt: skip
"""Operations whose (first) result holds numbers of their first operand."""
_PICKS = frozenset((
    "index", "_unsafe_index", "index_put", "embedding", "gather", "index_select", "scatter",
))  # fmt: skip
"""Operations that are given positions, which their own rules join with what they pick from."""
_JOINS = frozenset(("cat", "concat", "concatenate", "stack"))
_ORDERS = frozenset(("argsort",))
"""Operations for which only the order of the numbers counts, which stays as units leave."""
_COMPARES = frozenset(("eq", "ne", "lt", "le", "gt", "ge"))
_AS_VALUE = "has a number that the forward computes with, as with any other"


def refer(tensor: Tensor, ids: Ids | None) -> None:
    """Note that the numbers in a tensor refer to units."""
    info = info_of(tensor)
    attach_info(tensor, Info(info.labels, info.node, info.tensor, info.value, ids))


def follow_references(call: Call, infos: Sequence[Info], out: Any) -> None:
    """Let what an operation returns refer to units as its operands did; else fix those units.

    Args:
        call: An operation.
        infos: What was known of its tensors before it ran.
        out: What it returned.
    """
    if all(info.refers is None for info in infos):
        return
    name = call.func._schema.name.removeprefix("aten::").removesuffix("_")
    first = infos[0].refers
    if first is not None and name in _MOVES:
        for result in _tensors(out)[: 1 if name == "sort" else None]:
            refer(result, first)
    elif name in _JOINS and all(_same(info.refers, first) for info in infos):
        refer(out, first)
    elif name in _COMPARES and first is not None:
        _compare(call, first, out, is_equal=name == "eq")
    elif name == "histc" and first is not None:
        _count(call, first, out)
    elif name not in _PICKS | _ORDERS:
        fix_references(call.tape, infos)


def _same(refers: Ids | None, others: Ids | None) -> bool:
    return refers is not None and others is not None and np.array_equal(refers, others)


def fix_references(tape: Tape, infos: Sequence[Info]) -> None:
    """Fix the units whose numbers are used as values."""
    for info in infos:
        if info.refers is not None:
            tape.freezes.append((info.refers, tape.reason(_AS_VALUE)))


def _compare(call: Call, refers: Ids, out: Tensor, *, is_equal: bool) -> None:
    """Compare with the numbers of all units, which makes an axis of them, or with a limit."""
    node = call.tape.nodes[-1]
    other = call.args[1]
    if not isinstance(other, Tensor):
        count = int((refers != CONSTANT_ID).sum())
        node.scalars = (float(other) - count,)
        if other < count:
            fix_references(call.tape, [Info(refers=refers)])
            call.tape.shares[node.index] = count
        return
    if _same(info_of(other).refers, refers):
        return
    value, own = info_of(other).value, call.args[0]
    made = _range_behind(call.tape, other)
    axes = [a for a in range(-other.ndim, 0) if other.shape[a] > 1]
    if made is not None and other.ndim == 1:
        axes = [-1]
    alone = len(axes) == 1 and (own.ndim < -axes[0] or own.shape[axes[0]] == 1)
    if value is None or not alone or not is_equal:
        fix_references(call.tape, [Info(refers=refers)])
        return
    positions = value.ravel().long().numpy()
    inside = positions < len(refers)
    ids = np.where(inside, refers[np.where(inside, positions, 0)], CONSTANT_ID)
    if made is not None:
        # The numbers that are compared with follow the count, and so they are no values.
        made.scalars = ()
    _label(call, out, ids, axes[0] % out.ndim, (int((~inside).sum()),))


def _range_behind(tape: Tape, tensor: Tensor) -> Node | None:
    """Find the operation that made a row of numbers, 0 and up, of which a tensor is a view."""
    index = info_of(tensor).node
    while index is not None and index >= 0:
        node = tape.nodes[index]
        if node.operation == "aten.arange":
            return node
        if node.operation not in VIEWS or not node.inputs:
            return None
        index = node.inputs[0]
    return None


def _count(call: Call, refers: Ids, out: Tensor) -> None:
    """Count how often each unit is meant."""
    bins, *limits = (call.arg(i + 1, n, 0) for i, n in enumerate(("bins", "min", "max")))
    if bins > len(refers) or limits != [0, bins - 1]:
        fix_references(call.tape, [Info(refers=refers)])
        return
    _label(call, out, refers[:bins], 0, (bins - len(refers),))


def _label(call: Call, out: Tensor, ids: Ids, axis: int, beyond: tuple[int, ...]) -> None:
    """Label the axis that units got from their numbers, and doubt that its size follows them."""
    node = call.tape.nodes[-1]
    node.scalars = beyond
    label = axis_label(ids, axis, out.ndim)
    node.labels = (*node.labels, axis_label(ids, 0, 1))
    call.tape.doubts.append(node)
    call.put(out, (label,))


def pick(tape: Tape, tensor: Tensor | None, label: Label, refers: Ids) -> None:
    """Pick positions of an axis by the numbers of units: they are the same units.

    Args:
        tape: Where edges go.
        tensor: What is picked from, where picks are to be remembered.
        label: Its label on the axis alone.
        refers: What the numbers refer to.
    """
    ids = label.ids.ravel()
    common = min(len(ids), len(refers))
    tape.join(ids[:common], refers[:common])
    if ids[common:].any() or refers[common:].any():
        reason = tape.reason("is picked by the numbers of more or fewer units")
        tape.freezes.append((np.concatenate([ids, refers]), reason))
    node = tape.nodes[-1]
    name = None if tensor is None else info_of(tensor).tensor
    if name is None:
        tape.shares[node.index] = int((ids != CONSTANT_ID).sum())
    else:
        tape.picks.append(Pick(tape.nodes, node.index, name, ids))


def _tensors(out: Any) -> list[Tensor]:
    return [out] if isinstance(out, Tensor) else [t for t in out if isinstance(t, Tensor)]
