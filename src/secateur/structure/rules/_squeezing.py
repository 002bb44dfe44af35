"""Dropping axes of size 1."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from secateur.structure._label import Label
from secateur.structure.rules._registry import Call, positive_axes, rule


@rule("squeeze", "squeeze_")
def squeeze(call: Call) -> Tensor:
    """Drop axes of size 1; a labelled one stays in the ids of the axes around it.

    A longer one keeps its first position: with a single unit left, it would be dropped, too.

    Args:
        call: The call that is being traced.

    Returns:
        The tensor without these axes.
    """
    source = call.args[0]
    shape = tuple(source.shape)
    axes = positive_axes(call.arg(1, "dim"), source.ndim)
    gone = frozenset(a for a in axes if shape[a] == 1)
    for label in call.labels():
        for axis in label.axes & axes - gone:
            first = Label(label.ids.take([0], axis=axis), label.axes, label.major)
            call.tape.freeze([first], "stays so that the squeeze does not meet an axis of size 1")
    out = call.run()
    return call.keep_name(call.put(out, _dropped(call, call.labels(), gone, out.ndim)))


def _dropped(call: Call, labels: Sequence[Label], gone: frozenset[int], ndim: int) -> list[Label]:
    """Remove axes (reduced to one index) from labels; labels on those axes alone are fixed."""
    result = []
    for label in labels:
        if label.axes <= gone:
            call.tape.freeze([label], "is picked at a fixed position")
            continue
        left = label.without(gone & label.axes)
        kept = iter(range(ndim))
        target = [-1 if a in gone else next(kept) for a in range(left.ids.ndim)]
        result.append(left.moved(target, ndim))
    return result
