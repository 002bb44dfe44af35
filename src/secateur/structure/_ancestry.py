"""What each of two results depends on alone: a walk back that stops where both depend on the rest.

The walk visits nodes from the latest to the earliest, so that all that is said about a node is
known when it is reached. It ends as soon as nothing ahead belongs to one side only: its cost is
that of the part of the graph which the sides do not share, so that all blocks of a residual network
together cost as much as the network is long.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from secateur.structure._tape import Node

_BOTH = 3


def own_ancestors(
    nodes: Sequence[Node], a: int, b: int
) -> tuple[frozenset[int], frozenset[int]] | None:
    """Find what only one of two nodes depends on, themselves included.

    Args:
        nodes: Operations in execution order.
        a: Index of a node, or a negative number of a model input.
        b: Another one.

    Returns:
        Nodes that only ``a`` depends on, and that only ``b`` does; None where they share nothing.
    """
    marks = {a: 1, b: 2}
    ahead = [-a, -b]
    heapq.heapify(ahead)
    own: tuple[set[int], set[int]] = (set(), set())
    num_single, share = 2, False
    while ahead and num_single:
        here = -heapq.heappop(ahead)
        mark = marks[here]
        if mark == _BOTH:
            share = True
        else:
            num_single -= 1
            if here >= 0:
                own[mark - 1].add(here)
        for before in nodes[here].inputs if here >= 0 else ():
            known = marks.get(before, 0)
            new = known | mark
            if not known:
                heapq.heappush(ahead, -before)
            num_single += (new != _BOTH) - (known not in (0, _BOTH))
            marks[before] = new
    share = share or bool(ahead)
    return (frozenset(own[0]), frozenset(own[1])) if share else None
