"""Axes that a forward takes to be equally long: what has left one has to have left the other.

`x.transpose(1, 2).reshape(B, N, C)` behind attention gives the heads the width of the stream, which
was read from another tensor. Nothing else couples the two, but they only fit while both lose the
same number of positions. Where the units on both may go, they are united; where those on one stay,
the model fails at another size, and those on the other are fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from secateur.structure._made import Counted
from secateur.structure._measured import flat_sizes
from secateur.structure._stored import ids_along
from secateur.structure._tape import Tape

_RESHAPES = frozenset(("view", "reshape"))


def note_ties(
    tape: Tape, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any
) -> None:
    """Note axes that were given the size of another one by a reshape.

    Args:
        tape: Where ties are written.
        name: Name of the function.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        out: What it returned.
    """
    if name not in _RESHAPES or tape.is_retrace or not isinstance(out, Tensor):
        return
    sizes = flat_sizes(args[1:]) or kwargs.get("shape") or ()
    for axis, size in enumerate(sizes):
        if not isinstance(size, Counted):
            continue
        found = ids_along(out, axis, None)
        is_as_long = found is not None and len(found) == len(size.ids)
        if found is not None and is_as_long and not np.array_equal(found, size.ids):
            tape.ties.append((size.ids, found, tape.nodes[-1]))
