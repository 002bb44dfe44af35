"""What choices among units mean: which units stay with them, and what silences one.

A chosen unit, such as an expert, owns slices of several stored tensors. Zeros in those that are
multiplied last silence it. What is chosen instead of a gone unit differs from that, so chosen units
are inexact, as those under a norm are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from secateur.structure._choice import Pick
from secateur.structure._label import Ids
from secateur.structure._silence import PRODUCTS, VIEWS
from secateur.structure._structure import Reason
from secateur.structure._tape import CONSTANT_ID, Node, Tape

_GATHERS = {
    "aten.index_add", "aten.index_add_", "aten.index_put", "aten.index_put_", "aten.scatter_add",
    "aten.scatter_add_",
}  # fmt: skip
"""Operations that put rows which some were chosen for back among all."""


def is_chosen(tape: Tape, component: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which components are chosen, bool ``[components]``."""
    found = np.zeros(int(component.max()) + 1, dtype=bool)
    for choice in tape.choices:
        found[component[choice.ids]] = True
    found[component[CONSTANT_ID]] = False
    return found


def unchosen(tape: Tape, component: NDArray[np.int64]) -> list[tuple[Ids, Reason]]:
    """Fix what is weighed against others of its axis and then not chosen from them."""
    chosen = is_chosen(tape, component)
    found = []
    for ids, reason in tape.shared:
        loose = ~chosen[component[ids]]
        if loose.any():
            found.append((ids[loose], reason))
    return found


def fewest(tape: Tape, component: NDArray[np.int64]) -> dict[int, int]:
    """Say how many units have to stay for a choice to go on.

    Args:
        tape: The trace.
        component: Component of every id.

    Returns:
        Number of units for each component that is chosen.
    """
    found: dict[int, int] = {}
    for choice in tape.choices:
        units = np.unique(component[choice.ids])
        count = math.ceil(choice.count * len(units) / len(choice.ids))
        for unit in units.tolist():
            found[unit] = max(found.get(unit, 1), count)
    return found


def silencing(tape: Tape, component: NDArray[np.int64]) -> Ids:
    """Find the slices of stored tensors whose zeros silence chosen units.

    Args:
        tape: The trace.
        component: Component of every id.

    Returns:
        Ids of the slices that no other slice of the same units multiplies later.
    """
    groups: dict[tuple[int, int], list[Pick]] = {}
    for found in tape.picks:
        groups.setdefault((id(found.nodes), int(component[found.ids].max())), []).append(found)
    last = [pick.ids for picks in groups.values() for pick in _last(picks)]
    return np.concatenate(last) if last else np.zeros(0, dtype=np.int64)


def _last(picks: Sequence[Pick]) -> Iterator[Pick]:
    """Yield picks of the tensors whose results meet no later product with another of them."""
    nodes = picks[0].nodes
    products = {pick.node: _product(nodes, pick.node) for pick in picks}
    for name in dict.fromkeys(pick.tensor for pick in picks):
        own = [pick for pick in picks if pick.tensor == name]
        others = {products[pick.node] for pick in picks if pick.tensor != name} - {None}
        reached = _reached(nodes, {pick.node for pick in own})
        if not any(reached[product] for product in others if product is not None):
            yield from own


def _product(nodes: Sequence[Node], start: int) -> int | None:
    """Find the product that a picked slice enters, through views alone."""
    if nodes[start].operation in PRODUCTS:
        return start
    seen = {start}
    for node in nodes[start + 1 :]:
        if not seen.isdisjoint(node.inputs):
            if node.operation in PRODUCTS:
                return node.index
            if node.operation not in VIEWS:
                return None
            seen.add(node.index)
    return None


def _reached(nodes: Sequence[Node], starts: set[int]) -> list[bool]:
    """Tell which nodes depend on some nodes, these included."""
    found: list[bool] = []
    for node in nodes:
        found.append(node.index in starts or any(i >= 0 and found[i] for i in node.inputs))
    return found


def row_shares(tape: Tape) -> dict[int, float]:
    """Say which operations run on a share of the rows, as those of one expert in a loop do.

    A trace lets data choose every unit for every row, so that no operation is missed. Together the
    units get as many rows as there are choices.

    Args:
        tape: The trace.

    Returns:
        Share of the rows, for nodes that do not run on all.
    """
    found: dict[int, float] = {}
    for node in tape.nodes if tape.shares else ():
        if node.operation == "aten.nonzero" and node.index in tape.shares:
            found[node.index] = 1.0 / tape.shares[node.index]
        elif node.operation not in _GATHERS:
            shares = [found[i] for i in node.inputs if i in found]
            if shares:
                found[node.index] = min(shares)
    return found
