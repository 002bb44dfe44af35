"""Normalisations: some treat every channel alone, others mix channels in a statistic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from secateur.structure._coupling import Operand, couple, reduced
from secateur.structure._label import Label, axis_label
from secateur.structure.rules._registry import Call, empty_like, empty_like_shape, info_of, rule


@rule(
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit_functional",
    "batch_norm",
    "cudnn_batch_norm",
)
def batch_norm(call: Call) -> Any:
    """Normalise every channel by its own statistics: channels stay independent."""
    x = call.args[0]
    vectors = [v for v in call.args[1:5] if isinstance(v, Tensor)]
    _note_affine(call, call.args[1:3])
    labels = _affine(call, x, vectors, frozenset((1,)))
    out = call.put(empty_like(x), labels)
    if call.func._schema.name == "aten::batch_norm":
        return out
    return out, empty_like_shape(x, (0,)), empty_like_shape(x, (0,))


@rule("native_layer_norm", "layer_norm")
def layer_norm(call: Call) -> Any:
    """Normalise over the last axes; units on those axes share a statistic."""
    return _normalised(call, [call.arg(2, "weight"), call.arg(3, "bias")])


@rule("_fused_rms_norm", "rms_norm")
def rms_norm(call: Call) -> Any:
    """Divide by the root mean square over the last axes."""
    return _normalised(call, [call.arg(2, "weight")])


def _normalised(call: Call, vectors: list[Tensor | None]) -> Any:
    x, shape = call.args[0], list(call.args[1])
    if list(x.shape[x.ndim - len(shape) :]) != shape:
        raise RuntimeError(f"normalized_shape {shape} does not fit an input of {list(x.shape)}")
    axes = frozenset(range(x.ndim - len(shape), x.ndim))
    call.tape.doubt_number(kept_up=any(v is not None for v in vectors))
    _note_affine(call, vectors)
    operands = [Operand(call.labels(), tuple(x.shape))]
    operands += call.operands([v for v in vectors if v is not None], x.ndim)
    coupled = couple(call.tape, operands)
    if not _is_stored(vectors):
        note_statistics(call, coupled, axes)
    labels = mixed(call, coupled, axes)
    out = call.put(empty_like_shape(x, x.shape), labels)
    name = call.func._schema.name
    if name == "aten::native_layer_norm":
        return out, empty_like_shape(x, (0,)), empty_like_shape(x, (0,))
    return (out, empty_like_shape(x, (0,))) if name == "aten::_fused_rms_norm" else out


@rule("native_group_norm", "group_norm")
def group_norm(call: Call) -> Any:
    """Normalise over groups of channels; with one channel a group, channels stay independent."""
    x = call.args[0]
    native = call.func._schema.name == "aten::native_group_norm"
    given = call.args[1:3] if native else call.args[2:4]
    vectors = [v for v in given if v is not None]
    _note_affine(call, given)
    groups = call.args[6] if native else call.args[1]
    labels = _affine(call, x, vectors, frozenset((1,)))
    if groups == x.shape[1]:
        call.tape.doubt_number(kept_up=bool(vectors))
    else:
        if not _is_stored(vectors):
            note_statistics(call, labels, frozenset((1,)))
        labels = tuple(_by_group(call, label, groups) for label in labels)
    out = call.put(empty_like(x), labels)
    return (out, empty_like_shape(x, (0,)), empty_like_shape(x, (0,))) if native else out


def _is_stored(vectors: Sequence[Tensor | None]) -> bool:
    """Tell whether a norm is given a weight as it is stored, by which it can be known again."""
    infos = [info_of(v) for v in vectors if v is not None]
    return any(info.tensor is not None and info.node is None for info in infos)


def _note_affine(call: Call, vectors: Sequence[Any]) -> None:
    """Note what a norm multiplies by and adds at its end: where both are zero, so is the result."""
    if vectors and vectors[0] is not None:
        call.tape.nodes[-1].affine = tuple([info_of(v) for v in vectors if v is not None])


def note_statistics(call: Call, labels: tuple[Label, ...], axes: frozenset[int]) -> None:
    """Note where units share a statistic, and no weight of a norm tells which they are."""
    for label in labels:
        if label.axes <= axes and len(label.axes) == 1:
            call.tape.note_statistic(label)


def _by_group(call: Call, label: Label, groups: int) -> Label:
    """Unite the same position of every group, so that groups keep equal sizes."""
    if 1 not in label.axes:
        return label
    shape = label.ids.shape
    split = label.ids.reshape(shape[0], groups, -1, *shape[2:])
    call.tape.join(split, split[:, :1])
    call.tape.mark_inexact(label, "shares the statistics of a GroupNorm with other channels")
    return label


def mixed(call: Call, labels: tuple[Label, ...], axes: frozenset[int]) -> tuple[Label, ...]:
    """Let a statistic over some axes mix the units on them.

    Args:
        call: The call that is being traced.
        labels: Labels of the operand.
        axes: Axes the statistic is taken over.

    Returns:
        Labels afterwards; units on those axes alone are marked inexact.
    """
    result = []
    for label in labels:
        if label.axes <= axes:
            call.tape.mark_inexact(label, "shares a statistic over all units of this axis")
            result.append(label)
        else:
            result.append(call.tape.join_along(label, axes))
    return tuple(result)


def _affine(
    call: Call, x: Tensor, vectors: list[Tensor], keep: frozenset[int]
) -> tuple[Label, ...]:
    """Couple per-channel vectors with axis 1; other axes are part of the statistic or untouched."""
    operands = [Operand(call.labels(), tuple(x.shape))]
    for vector in vectors:
        shape = [1] * x.ndim
        shape[1] = vector.shape[0]
        labels = tuple(axis_label(y.ids.ravel(), 1, x.ndim) for y in info_of(vector).labels)
        operands.append(Operand(labels, tuple(shape)))
    coupled = couple(call.tape, operands)
    training = any(a is True for a in call.args[5:6])
    if not training:
        return coupled
    others = frozenset(range(x.ndim)) - keep
    alone = [y for y in coupled if y.axes <= others]
    message = "is averaged over by a normalisation"
    return tuple(y for y in coupled if y not in alone) + reduced(call.tape, alone, others, message)
