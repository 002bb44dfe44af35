"""Convolutions: plain, grouped, depthwise and transposed, in one to three dimensions.

Letters of the virtual frame: B batch, G groups, O outputs of a group, C inputs of a group,
S everything spatial (kernel and output positions). A spatial axis carries units only where every
position is convolved alone; it then passes through.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from secateur.structure._coupling import Operand, contract, couple
from secateur.structure._label import Label, axis_label
from secateur.structure._tape import Grouping
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
    alone = _axes_alone(weight, _each(stride, spatial), _each(padding, spatial))
    passing = [y for y in info_of(x).labels if y.axes <= alone]
    for label in passing:
        positions //= math.prod(x.shape[a] for a in label.axes)
    labels = _channels(call, x, weight, transposed, groups, positions, passing)
    framed = [y.moved((0, 1), out.ndim) for y in labels] + passing
    for label in passing:
        full = [n if a in label.axes else 1 for a, n in enumerate(x.shape)]
        call.tape.charge_along(np.broadcast_to(label.ids, full))
    if bias is not None:
        ids = [y.ids.ravel() for y in info_of(bias).labels]
        bias_shape = [1] * out.ndim
        bias_shape[1] = out_channels
        other = Operand(tuple(axis_label(i, 1, out.ndim) for i in ids), tuple(bias_shape))
        framed = list(couple(call.tape, [Operand(tuple(framed), tuple(out.shape)), other]))
    return call.put(out, framed)


def _axes_alone(weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> frozenset[int]:
    """Name the spatial axes along which the kernel is a single position that moves step by step."""
    return frozenset(
        axis
        for axis, step, pad in zip(range(2, weight.ndim), stride, padding, strict=True)
        if weight.shape[axis] == 1 and step == 1 and pad == 0
    )


def _grouping(call: Call, weight: Tensor, groups: int, transposed: bool) -> Grouping:
    """Classify a convolution; a smaller model is read as the one it was cut from.

    With one channel left in every group the shapes alone no longer tell.

    Args:
        call: The call that is being traced.
        weight: Weight of the convolution.
        groups: Number of groups.
        transposed: Whether the axes of the weight are (in, out).

    Returns:
        How its groups relate to units.
    """
    name = info_of(weight).tensor
    if name is not None and name in call.tape.groupings:
        return call.tape.groupings[name]
    found = Grouping.GROUPED
    if groups == 1:
        found = Grouping.PLAIN
    elif (weight.shape[0] if transposed else groups * weight.shape[1]) == groups:
        several = transposed and weight.shape[1] > 1
        found = Grouping.GROUPED if several else Grouping.DEPTHWISE
    if name is not None:
        call.tape.groupings[name] = found
    return found


def _channels(
    call: Call,
    x: Tensor,
    weight: Tensor,
    transposed: bool,
    groups: int,
    positions: int,
    passing: Sequence[Label],
) -> list[Label]:
    """Couple input channels, weight and output channels.

    Args:
        call: The call that is being traced.
        x: Input.
        weight: Weight of the convolution.
        transposed: Whether the axes of the weight are (in, out).
        groups: Number of groups.
        positions: Products of spatial positions without units, for the cost.
        passing: Labels of the input that pass through.

    Returns:
        Labels of the result on (batch, channel).
    """
    tape = call.tape
    spatial = range(2, x.ndim)
    inputs = []
    for label in info_of(x).labels:
        if label in passing:
            continue
        if label.axes <= set(spatial):
            tape.freeze([label], "is a spatial axis of a convolution")
        else:
            inputs.append(tape.join_along(label, spatial))
    kernel = range(2, weight.ndim)
    weights = [tape.join_along(y, kernel) for y in info_of(weight).labels if min(y.axes) < 2]
    in_axis = 0 if transposed else 1
    per_group = weight.shape[1] if transposed else weight.shape[0] // groups
    grouping = _grouping(call, weight, groups, transposed)
    if grouping is Grouping.DEPTHWISE:
        tape.doubt_number()
        if transposed:
            shared = [y for y in weights if min(y.axes) == 1]
            tape.freeze(shared, "is shared by all groups")
            weights = [y for y in weights if min(y.axes) == 0]
    shape_x = (x.shape[0], groups, 1, x.shape[1] // groups, 1)
    shape_w = (1, groups, per_group, x.shape[1] // groups, positions)
    left = Operand(tuple(_input_frame(y, groups, grouping) for y in inputs), shape_x)
    framed = tuple(_weight_frame(y, in_axis, groups, transposed, grouping) for y in weights)
    if grouping is Grouping.DEPTHWISE:
        framed = tuple(tape.join_along(y, (_O,)) if _G in y.axes else y for y in framed)
    right = Operand(framed, shape_w)
    stored = 1 if info_of(weight).tensor is not None else None
    if grouping is Grouping.GROUPED:
        left, right = _grouped(call, left, right)
    result = contract(tape, left, right, frozenset((_C,)), stored)
    return [_output_frame(y, shape_w, x.shape[0], per_group * groups) for y in result]


def _input_frame(label: Label, groups: int, grouping: Grouping) -> Label:
    """Place a label on (batch, channel) in the frame B G O C S."""
    batch, channels = label.ids.shape[:2]
    axes = {_B} if 0 in label.axes else set()
    if 1 not in label.axes:
        return Label(label.ids.reshape(batch, 1, 1, 1, 1), frozenset(axes), _B)
    own = _split_axes(grouping, channels // groups, _C)
    ids = label.ids.reshape(batch, groups, 1, channels // groups, 1)
    return Label(ids, frozenset(axes | own), _B if label.major == 0 else min(own))


def _weight_frame(
    label: Label, in_axis: int, groups: int, transposed: bool, grouping: Grouping
) -> Label:
    """Place a label on one channel axis of a weight in the frame B G O C S.

    The axis counted over all groups is the output's, in a transposed convolution the input's.

    Args:
        label: The label.
        in_axis: Axis of input channels.
        groups: Number of groups.
        transposed: Whether the axes of the weight are (in, out).
        grouping: How groups relate to units.

    Returns:
        The label in the frame.
    """
    ids = label.ids.reshape(-1)
    axis = min(label.axes)
    inner = _C if axis == in_axis else _O
    if (axis == in_axis) is not transposed:
        shape = [1, 1, 1, 1, 1]
        shape[inner] = len(ids)
        return Label(ids.reshape(shape), frozenset((inner,)), inner)
    axes = _split_axes(grouping, len(ids) // groups, inner)
    shape = [1, groups, 1, 1, 1]
    shape[inner] = len(ids) // groups
    return Label(ids.reshape(shape), frozenset(axes), min(axes))


def _split_axes(grouping: Grouping, per_group: int, inner: int) -> set[int]:
    """Name the frame axes that a channel axis over all groups falls apart into."""
    if grouping is Grouping.PLAIN:
        return {inner}
    if grouping is Grouping.DEPTHWISE and per_group == 1:
        return {_G}
    return {_G, inner}


def _grouped(call: Call, left: Operand, right: Operand) -> tuple[Operand, Operand]:
    """Unite the same position of every group, on either side."""
    tape = call.tape
    alone = [y for y in left.labels if y.axes == {_G}]
    tape.freeze(alone, "feeds several outputs of its group")
    inputs = [tape.join_along(y, (_G,)) for y in left.labels if y.axes != {_G}]
    outer = [tape.join_along(y, (_G,)) if len(y.axes) > 1 else y for y in right.labels]
    left = Operand(tuple(inputs), (*left.shape[:_G], 1, *left.shape[_G + 1 :]))
    return left, Operand(tuple(outer), right.shape)


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
