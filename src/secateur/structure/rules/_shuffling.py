"""Shuffles: channels move into space, back, or between groups."""

from __future__ import annotations

import math

from torch import Tensor

from secateur.structure._label import reshaped
from secateur.structure.rules._registry import Call, rule


@rule("pixel_shuffle", "pixel_unshuffle", "native_channel_shuffle", "channel_shuffle")
def shuffle(call: Call) -> Tensor:
    """Move channels into space or back, or between groups: a reshape, a permute, a reshape."""
    source = call.args[0]
    out = call.run()
    apart, order, fixed = _shuffle(call.func._schema.name, tuple(source.shape), call.args[1])
    target = [0] * len(order)
    for new, old in enumerate(order):
        target[old] = new
    labels = []
    for label in call.labels():
        joint = reshaped(label, source.shape, apart)
        if joint.axes <= fixed:
            call.tape.freeze([joint], "is shuffled alone in its group")
            continue
        moved = call.tape.join_along(joint, fixed).moved(target, len(order))
        labels.append(reshaped(moved, [apart[a] for a in order], out.shape))
    return call.put(out, labels)


def _shuffle(
    name: str, shape: tuple[int, ...], factor: int
) -> tuple[list[int], list[int], frozenset[int]]:
    """Write a shuffle as a split shape, the order its axes are merged in, and fixed axes."""
    if name == "aten::pixel_shuffle":
        *batch, c, h, w = shape
        n = len(batch)
        order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
        apart = [*batch, c // factor**2, factor, factor, h, w]
        return apart, order, frozenset((n + 1, n + 2))
    if name == "aten::pixel_unshuffle":
        *batch, c, h, w = shape
        n = len(batch)
        order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
        apart = [*batch, c, h // factor, factor, w // factor, factor]
        return apart, order, frozenset((n + 2, n + 4))
    b, c, *rest = shape
    return [b, factor, c // factor, math.prod(rest)], [0, 2, 1, 3], frozenset((1,))
