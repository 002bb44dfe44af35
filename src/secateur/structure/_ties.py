"""Axes that a forward takes to be equally long: what has left one has to have left the other.

`x.transpose(1, 2).reshape(B, N, C)` behind attention gives the heads the width of the stream, which
was read from another tensor. Nothing else couples the two, but they only fit while both lose the
same number of positions. Where the units on both may go, they are united; where those on one stay,
the model fails at another size, and those on the other are fixed. So it is with a slice that ends
where another axis does, as in `x[..., : y.shape[-1]]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from secateur.structure._counted import Counted
from secateur.structure._label import Ids
from secateur.structure._measured import flat_sizes
from secateur.structure._stored import ids_along
from secateur.structure._tape import Tape
from secateur.structure._told import slices_in

_RESHAPES = frozenset(("view", "reshape"))


def note_ties(
    tape: Tape, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """Note axes that were given the size of another one by a reshape or a slice.

    Args:
        tape: Where ties are written.
        name: Name of the function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        out: What it returned.
    """
    if tape.is_retrace or not isinstance(out, Tensor):
        return
    if name in _RESHAPES:
        for axis, size in enumerate(flat_sizes(args[1:]) or kwargs.get("shape") or ()):
            if isinstance(size, Counted):
                _note(tape, size, ids_along(out, axis, None))
    elif name == "__getitem__":
        for axis, _, entry in slices_in(args[1], args[0].ndim):
            for end in (entry.start, entry.stop):
                if isinstance(end, Counted):
                    _note(tape, end, ids_along(args[0], axis, end))


def _note(tape: Tape, size: Counted, found: Ids | None) -> None:
    """Note that what a size counts and what lies on another axis are equally many."""
    is_as_long = found is not None and len(found) == len(size.ids)
    if found is not None and is_as_long and not np.array_equal(found, size.ids):
        tape.ties.append((size.ids, found, tape.nodes[-1]))
