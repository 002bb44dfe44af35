"""Sizes that a forward compares: what it found to be equal has to be equal in a smaller model.

`assert x.shape[1] == self.channels` says what the number in the module counts, and
`w.shape == (q.size(-1), q.size(-1))` that two axes are equally long. Whether the forward goes on at
another size is then found out by trying.
"""

from __future__ import annotations

import sys

import numpy as np

from secateur.structure._label import Ids, Label
from secateur.structure._measured import Measured, Origin
from secateur.structure._own_code import is_own_code
from secateur.structure._tape import Node, Tape
from secateur.structure._told import Stored
from secateur.structure._use import Use

_COMPARED = "secateur.compared"
"""What stands in the graph for a comparison of sizes."""


def note_equal(origin: Origin, ids: Ids, other: object) -> None:
    """Note that a size was found to be equal to something.

    Args:
        origin: The axis that the size was read from.
        ids: Ids on it.
        other: What it equals: a number kept by a module, a size of another axis, or any number.
    """
    tape = origin.tape
    labels: tuple[Label, ...] = (origin.label,)
    if isinstance(other, Measured):
        its_ids = getattr(other, "ids", None)
        is_same = its_ids is not None and np.array_equal(ids, its_ids)
        if is_same or any(its.tape is not tape for its in other.origins):
            return
        labels += tuple(its.label for its in other.origins)
    node = _comparison(tape)
    node.labels = labels
    tape.nodes.append(node)
    tape.doubts.append(node)
    if isinstance(other, Stored):
        tape.uses.append(Use(other.source, ids, node.file, node.line, other.times))
    elif isinstance(other, Measured) and not tape.is_retrace:
        its_ids = getattr(other, "ids", None)
        if its_ids is not None and len(its_ids) == len(ids):
            tape.ties.append((ids, its_ids, node))


def _comparison(tape: Tape) -> Node:
    """Make a node for the line of the model's own code that is comparing."""
    running = [i for i, call in enumerate(tape.calls) if call.stop < 0]
    frame = sys._getframe(3)
    while frame.f_back is not None and is_own_code(frame.f_code.co_filename):
        frame = frame.f_back
    return Node(
        index=len(tape.nodes),
        operation=_COMPARED,
        module=tape.calls[running[-1]].path if running else "",
        call=running[-1] if running else -1,
        file=frame.f_code.co_filename,
        line=frame.f_lineno,
    )
