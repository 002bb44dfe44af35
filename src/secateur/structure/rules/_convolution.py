"""Convolutions: plain, grouped, depthwise and transposed, in one to three dimensions.

Letters of the virtual frame: B batch, G groups, O outputs of a group, C inputs of a group,
S everything spatial (kernel and output positions, which never carry units).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from secateur.structure._coupling import Operand, contract, couple
from secateur.structure._label import Label, axis_label
from secateur.structure.rules._registry import Call, empty_like_shape, info_of, rule

_B, _G, _O, _C, _S = range(5)


@rule("convolution", "_convolution", "convolution_overrideable", "cudnn_convolution")
def convolution(call: Call) -> Tensor:
    """Contract input channels with a weight, group by group."""
    x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = call.args[:9]
    spatial = x.ndim - 2
    out_channels = weight.shape[1] * groups if transposed else weight.shape[0]
    size = _output_size(
        x.shape[2:],
        weight.shape[2:],
        _each(stride, spatial),
        _each(padding, spatial),
        _each(dilation, spatial),
        _each(output_padding, spatial) if transposed else None,
    )
    out = empty_like_shape(x, (x.shape[0], out_channels, *size))
    positions = math.prod(x.shape[2:] if transposed else size) * math.prod(weight.shape[2:])
    labels = _channels(call, x, weight, transposed, groups, positions)
    framed = [y.moved((0, 1), out.ndim) for y in labels]
    if bias is not None:
        ids = [y.ids.ravel() for y in info_of(bias).labels]
        bias_shape = [1] * out.ndim
        bias_shape[1] = out_channels
        other = Operand(tuple(axis_label(i, 1, out.ndim) for i in ids), tuple(bias_shape))
        framed = list(couple(call.tape, [Operand(tuple(framed), tuple(out.shape)), other]))
    return call.put(out, framed)


def _channels(
    call: Call, x: Tensor, weight: Tensor, transposed: bool, groups: int, positions: int
) -> list[Label]:
    """Couple input channels, weight and output channels; labels of the result on (batch, channel)."""
    tape = call.tape
    spatial = range(2, x.ndim)
    inputs = []
    for label in info_of(x).labels:
        if label.axes <= set(spatial):
            tape.freeze([label], "is a spatial axis of a convolution")
        else:
            inputs.append(tape.join_along(label, spatial))
    kernel = range(2, weight.ndim)
    weights = [tape.join_along(y, kernel) for y in info_of(weight).labels if min(y.axes) < 2]
    in_axis, out_axis = (0, 1) if transposed else (1, 0)
    num_out = weight.shape[out_axis] * (groups if transposed else 1)
    num_in = x.shape[1]
    stored = 1 if info_of(weight).tensor is not None else None
    shape_x = (x.shape[0], groups, 1, num_in // groups, 1)
    shape_w = (1, groups, num_out // groups, num_in // groups, positions)
    left = Operand(tuple(_input_frame(y, groups) for y in inputs), shape_x)
    right = Operand(
        tuple(_weight_frame(y, in_axis, groups, transposed) for y in weights),
        shape_w,
    )
    per_group = num_out // groups
    if groups > 1 and transposed and per_group == 1:
        tape.freeze([y for y in weights if min(y.axes) == out_axis], "is shared by all groups")
        right = Operand(tuple(y for y in right.labels if y.axes != {_O}), right.shape)
    if groups == 1 or (num_in == groups and not (transposed and per_group > 1)):
        result = contract(tape, left, right, frozenset((_C,)), stored)
    else:
        result = _grouped(call, left, right, stored)
    return [_output_frame(y, shape_w, x.shape[0], num_out) for y in result]


def _input_frame(label: Label, groups: int) -> Label:
    """Place a label on (batch, channel) in the frame B G O C S."""
    batch, channels = label.ids.shape[:2]
    axes = set()
    if 0 in label.axes:
        axes.add(_B)
    if 1 not in label.axes:
        return Label(label.ids.reshape(batch, 1, 1, 1, 1), frozenset(axes), _B)
    axes |= _channel_axes(groups, channels, _C)
    ids = label.ids.reshape(batch, groups, 1, channels // groups, 1)
    major = _B if label.major == 0 else min(axes - {_B})
    return Label(ids, frozenset(axes), major)


def _weight_frame(label: Label, in_axis: int, groups: int, transposed: bool) -> Label:
    """Place a label on one channel axis of a weight in the frame B G O C S."""
    ids = label.ids.reshape(-1)
    axis = min(label.axes)
    if axis == in_axis:
        shape = (1, groups, 1, len(ids) // groups, 1) if transposed else (1, 1, 1, len(ids), 1)
        axes = _channel_axes(groups, len(ids), _C) if transposed else {_C}
        return Label(ids.reshape(shape), frozenset(axes), min(axes))
    shape = (1, 1, len(ids), 1, 1) if transposed else (1, groups, len(ids) // groups, 1, 1)
    axes = {_O} if transposed else _channel_axes(groups, len(ids), _O)
    return Label(ids.reshape(shape), frozenset(axes), min(axes))


def _channel_axes(groups: int, channels: int, inner: int) -> set[int]:
    """Name the frame axes that a channel axis falls apart into."""
    if groups == 1:
        return {inner}
    return {_G} if channels == groups else {_G, inner}


def _grouped(
    call: Call, left: Operand, right: Operand, stored: int | None
) -> tuple[Label, ...]:
    """Several channels a group: a unit is the same position in every group, on either side."""
    tape = call.tape
    tape.freeze([y for y in left.labels if y.axes == {_G}], "feeds several outputs of its group")
    inputs = [tape.join_along(y, (_G,)) for y in left.labels if y.axes != {_G}]
    outer = []
    for label in right.labels:
        outer.append(tape.join_along(label, (_G,)) if len(label.axes) > 1 else label)
    left = Operand(tuple(inputs), (*left.shape[:_G], 1, *left.shape[_G + 1 :]))
    return contract(tape, left, Operand(tuple(outer), right.shape), frozenset((_C,)), stored)


def _output_frame(label: Label, shape: Sequence[int], batch: int, channels: int) -> Label:
    """Merge groups and outputs of a group into the channel axis of the result."""
    if not label.axes & {_G, _O}:
        ids = label.ids.reshape(-1, 1)
        return Label(ids, frozenset((0,)), 0)
    full = (label.ids.shape[_B], shape[_G], shape[_O])
    ids = np.broadcast_to(label.ids[:, :, :, 0, 0], full).reshape(full[0], channels)
    axes = frozenset((0, 1) if _B in label.axes else (1,))
    return Label(ids, axes, 0 if label.major == _B else 1)


def _each(value: int | Sequence[int], count: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values


def _output_size(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_padding: Sequence[int] | None,
) -> list[int]:
    """Compute the spatial size of a convolution's result."""
    if output_padding is None:
        return [
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
        ]
    return [
        (n - 1) * s - 2 * p + d * (k - 1) + extra + 1
        for n, k, s, p, d, extra in zip(
            size, kernel, stride, padding, dilation, output_padding, strict=True
        )
    ]
