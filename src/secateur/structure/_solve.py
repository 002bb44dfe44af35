"""From edges to units: connected components, late coarsening, and which components are free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from secateur.structure._chosen import fewest, silencing, unchosen
from secateur.structure._heads import silenced
from secateur.structure._label import Ids, Label
from secateur.structure._structure import Reason, TensorInfo
from secateur.structure._tape import CONSTANT_ID, Tape

_PADDED = "is added to padding, or to a part of a concatenation that has no units"


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Which ids belong together and which of them may go.

    Attributes:
        component: Component of every id, ``[ids]``.
        consumed: Whether each id is a slice of a weight that multiplies its unit, ``[ids]``.
        only_makers: Whether each id is such a slice and makes its unit, too, as nothing else does.
        free: Whether each component is a removable unit, ``[components]``.
        inexact: Index into ``reasons`` for free components under a shared statistic, else -1.
        blame: Index into ``reasons`` why a component is not free, else -1.
        reasons: Reasons that ``inexact`` and ``blame`` point to.
        fewest: Number of units that have to stay, for components that are chosen from others.
    """

    component: NDArray[np.int64]
    consumed: NDArray[np.bool_]
    only_makers: NDArray[np.bool_]
    free: NDArray[np.bool_]
    inexact: NDArray[np.int64]
    blame: NDArray[np.int64]
    reasons: tuple[Reason, ...]
    fewest: Mapping[int, int]


def solve(tape: Tape, tensors: Mapping[str, TensorInfo], *, allow_inexact: bool) -> Solution:
    """Turn the edges of a trace into units.

    Args:
        tape: The trace.
        tensors: Parameters and buffers by canonical name.
        allow_inexact: Whether units under a shared statistic may go.

    Returns:
        Components and which of them are free.
    """
    a = _joined([edge[0] for edge in tape.edges])
    b = _joined([edge[1] for edge in tape.edges])
    padded = _padded(tape, (a == CONSTANT_ID) | (b == CONSTANT_ID))
    settled = (0, 0)
    while True:
        apart = (a != CONSTANT_ID) & (b != CONSTANT_ID)
        rest = (np.maximum(a, b)[~apart], Reason(message=_PADDED))
        component = connected(tape.num_ids, a[apart], b[apart])
        silence = silenced(tape, tensors, component)
        freezes = [*tape.freezes, *silence.loud, *unchosen(tape, component), *padded, rest]
        frozen = np.zeros(component.max() + 1, dtype=bool)
        frozen[component[_joined([ids for ids, _ in freezes])]] = True
        frozen[component[CONSTANT_ID]] = True
        # What is joined to padding is fixed, not united, so it may go on varying along two axes.
        reached = (len(frozen), int(frozen.sum()))
        extra = [e for label in tape.joints for e in _coarsened(label, component, frozen)]
        if not extra or reached == settled:
            break
        settled = reached
        a = np.concatenate([a, *(e[0] for e in extra)])
        b = np.concatenate([b, *(e[1] for e in extra)])
    silent = np.concatenate([silence.ids, silencing(tape, component)])
    return _judged(tape, tensors, component, freezes, silent, allow_inexact)


def _padded(tape: Tape, is_padded: NDArray[np.bool_]) -> list[tuple[Ids, Reason]]:
    """Fix what meets padding.

    Args:
        tape: The trace.
        is_padded: Whether each pair of ids meets padding, all edges one after another.

    Returns:
        Ids and reason for each edge that does.
    """
    if not is_padded.any():
        return []
    found, start = [], 0
    for x, y, node in tape.edges:
        own = is_padded[start : start + len(x)]
        start += len(x)
        if own.any():
            found.append((np.maximum(x, y)[own], node.reason(_PADDED)))
    return found


def connected(count: int, a: Ids, b: Ids) -> NDArray[np.int64]:
    """Number the groups that edges between ``a`` and ``b`` make of ``count`` things."""
    graph = coo_matrix((np.ones(len(a), dtype=np.int8), (a, b)), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    return np.asarray(component, dtype=np.int64)


def _coarsened(
    label: Label, component: NDArray[np.int64], frozen: NDArray[np.bool_]
) -> list[tuple[Ids, Ids]]:
    """Leave a joint label one axis to vary on: the one that keeps most of its slices free."""
    found = component[label.ids]
    varying = [
        axis
        for axis in sorted(label.axes)
        if not np.array_equal(np.broadcast_to(found.take([0], axis=axis), found.shape), found)
    ]
    if len(varying) < 2:
        return []
    dead = frozen[found]

    def num_free(axis: int) -> int:
        others = tuple(a for a in range(found.ndim) if a != axis)
        return int((~dead.any(axis=others)).sum())

    best = max(varying, key=lambda axis: (num_free(axis), -axis))
    edges = []
    for axis in varying:
        if axis != best:
            first = np.broadcast_to(label.ids.take([0], axis=axis), label.ids.shape)
            edges.append((first.ravel(), label.ids.ravel()))
    return edges


def _judged(
    tape: Tape,
    tensors: Mapping[str, TensorInfo],
    component: NDArray[np.int64],
    freezes: list[tuple[Ids, Reason]],
    silencing: Ids,
    allow_inexact: bool,
) -> Solution:
    """Decide which components are free: learned, consumed, never fixed."""
    count = int(component.max()) + 1
    reasons: list[Reason] = []
    blame = np.full(count, -1, dtype=np.int64)
    inexact = np.full(count, -1, dtype=np.int64)
    _write(blame, component, freezes, reasons)
    _write(inexact, component, tape.inexact, reasons)
    blame[component[CONSTANT_ID]] = max(blame[component[CONSTANT_ID]], 0)
    is_consumed = _consumed(tape, component)
    is_consumed[silencing] = True
    consumed = np.zeros(count, dtype=bool)
    consumed[component[is_consumed]] = True
    by_buffer = np.zeros(count, dtype=bool)
    made = np.zeros(count, dtype=bool)
    for (name, _), ids in tape.ranges.items():
        if tensors[name].is_parameter:
            made[component[ids[~is_consumed[ids]]]] = True
        else:
            by_buffer[component[ids[is_consumed[ids]]]] = True
    # What makes one factor of a product multiplies the other; a fused projection makes both.
    only_makers = np.zeros(len(component), dtype=bool)
    only_makers[silencing] = ~made[component[silencing]]
    made[component[silencing]] = True
    unmade = len(reasons)
    reasons.append(Reason(message="no parameter makes these positions"))
    reasons.append(Reason(message="no parameter consumes these positions"))
    blame[(blame < 0) & ~made] = unmade
    blame[(blame < 0) & ~consumed] = unmade + 1
    reasons.append(Reason(message="is summed with a buffer as its weights, as for a spectral norm"))
    blame[(blame < 0) & by_buffer] = unmade + 2
    if not allow_inexact:
        blocked = (blame < 0) & (inexact >= 0)
        blame[blocked] = inexact[blocked]
    return Solution(
        component=component,
        consumed=is_consumed,
        only_makers=only_makers,
        free=blame < 0,
        inexact=inexact,
        blame=blame,
        reasons=tuple(reasons),
        fewest=fewest(tape, component),
    )


def _consumed(tape: Tape, component: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Extend consumption to all positions of a unit on the same axis (one for each group, say)."""
    result = np.zeros(tape.num_ids, dtype=bool)
    result[_joined(tape.consumed)] = True
    for ids in tape.ranges.values():
        own = result[ids]
        if own.any() and not own.all():
            result[ids] = np.isin(component[ids], component[ids[own]])
    return result


def _write(
    target: NDArray[np.int64],
    component: NDArray[np.int64],
    events: list[tuple[Ids, Reason]],
    reasons: list[Reason],
) -> None:
    """Give every component the first of its reasons."""
    start = len(reasons)
    reasons += [reason for _, reason in events]
    for number in range(len(events) - 1, -1, -1):
        target[component[events[number][0]]] = start + number


def _joined(arrays: Iterable[Ids]) -> Ids:
    found = [array.ravel() for array in arrays]
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)
