"""Pooling, interpolation and border padding: spatial axes are mixed, channels are not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import Tensor

from secateur.structure._coupling import reduced
from secateur.structure._label import Label
from secateur.structure.rules._registry import Call, rule

_SPATIAL = {
    1: ("avg_pool1d", "adaptive_avg_pool1d", "max_pool1d", "upsample_linear1d",
        "upsample_nearest1d", "_upsample_nearest_exact1d", "reflection_pad1d",
        "replication_pad1d"),
    2: ("avg_pool2d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "max_pool2d",
        "max_pool2d_with_indices", "adaptive_max_pool2d", "upsample_nearest2d",
        "upsample_bilinear2d", "upsample_bicubic2d", "_upsample_nearest_exact2d",
        "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "reflection_pad2d",
        "replication_pad2d", "fractional_max_pool2d", "grid_sampler_2d"),
    3: ("avg_pool3d", "adaptive_avg_pool3d", "_adaptive_avg_pool3d", "max_pool3d",
        "max_pool3d_with_indices", "adaptive_max_pool3d", "upsample_nearest3d",
        "upsample_trilinear3d", "_upsample_nearest_exact3d", "reflection_pad3d",
        "replication_pad3d", "grid_sampler_3d"),
}  # fmt: skip
_NAMES = {name: count for count, names in _SPATIAL.items() for name in names}


@rule(*_NAMES)
def spatial(call: Call) -> Any:
    """Mix the last one to three axes of a tensor."""
    count = _NAMES[call.func._schema.name.removeprefix("aten::")]
    x = call.args[0]
    labels = _without_spatial(call, call.labels(), range(x.ndim - count, x.ndim))
    out = call.run()
    for result in out if isinstance(out, tuple) else (out,):
        call.put(result, labels)
    return out


def _without_spatial(call: Call, labels: Iterable[Label], axes: Iterable[int]) -> tuple[Label, ...]:
    return reduced(call.tape, labels, axes, "lies on a spatial axis that is pooled or resized")


@rule("constant_pad_nd", "pad")
def constant_pad(call: Call) -> Tensor:
    """Pad axes with a constant; padded positions belong to no unit."""
    x = call.args[0]
    amounts = call.args[1]
    widths = [(0, 0)] * x.ndim
    for i in range(len(amounts) // 2):
        widths[x.ndim - 1 - i] = (amounts[2 * i], amounts[2 * i + 1])
    cropped = frozenset(a for a, width in enumerate(widths) if min(width) < 0)
    labels = []
    for label in reduced(call.tape, call.labels(), cropped, "is cropped at a fixed position"):
        pads = [width if a in label.axes else (0, 0) for a, width in enumerate(widths)]
        labels.append(Label(np.pad(label.ids, pads), label.axes, label.major))
    return call.put(call.run(), labels)


@rule("im2col", "col2im")
def patches(call: Call) -> Tensor:
    """Gather patches into channels: every channel becomes as many as the patch has positions."""
    call.tape.freeze(call.labels(), "is unfolded into patches")
    out: Tensor = call.run()
    return out
