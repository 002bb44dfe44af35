"""Element-wise operations: operands are coupled index by index."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from secateur.structure._coupling import couple
from secateur.structure._label import Label
from secateur.structure._tape import Info
from secateur.structure.rules._registry import Call, attach_info, empty_like, info_of, rule

_SCALES = frozenset(("aten::mul", "aten::div", "aten::neg"))
_PLAIN = {
    f"aten::{name}"
    for name in (
        "add", "sub", "mul", "div", "relu", "gelu", "silu", "sigmoid", "tanh", "hardsigmoid",
        "hardswish", "hardtanh", "leaky_relu", "elu", "mish", "exp", "neg", "sqrt", "rsqrt",
    )
}  # fmt: skip
"""Operations whose floating-point result has the type of its operands."""


@rule(
    "copy",
    "clamp_",
    "dropout",
    "elu",
    "elu_",
    "fill",
    "fill_",
    "hardsigmoid",
    "hardsigmoid_",
    "hardswish",
    "hardswish_",
    "hardtanh",
    "hardtanh_",
    "leaky_relu",
    "leaky_relu_",
    "log_sigmoid_forward",
    "mish",
    "mish_",
    "normal",
    "polar",
    "complex",
    "prelu",
    "_prelu_kernel",
    "rrelu_with_noise",
    "softplus",
    "threshold",
    "where",
    "masked_fill",
    "masked_fill_",
    "nan_to_num",
    "zero_",
)
def pointwise(call: Call) -> Any:
    """Couple all tensor operands under broadcasting; the first of several results is labelled."""
    tensors = [a for a in call.args if isinstance(a, Tensor)]
    if len(tensors) == 1:
        labels = info_of(tensors[0]).labels
    else:
        ndim = max(t.ndim for t in tensors)
        labels = couple(call.tape, call.operands(tensors, ndim))
    stored = _scaled_parameter(call, tensors)
    if stored is not None:
        labels = _by(info_of(stored).labels, labels)
    largest = _like_result(call, tensors)
    out = _labelled(call, labels) if largest is None else call.put(empty_like(largest), labels)
    if stored is not None:
        info_of(out).tensor = info_of(stored).tensor
    return out


def _scaled_parameter(call: Call, tensors: list[Tensor]) -> Tensor | None:
    """Find the parameter that is scaled: where it is zero, so is the result."""
    name = call.func._schema.name
    if name not in _SCALES or not any(info_of(t).tensor for t in tensors):
        return None
    numerators = tensors[:1] if name == "aten::div" else tensors
    shape = torch.broadcast_shapes(*(t.shape for t in tensors))
    stored = [t for t in numerators if info_of(t).tensor is not None and t.shape == shape]
    learned = [t for t in stored if isinstance(t, torch.nn.Parameter)] or stored
    return learned[0] if len(learned) == 1 else None


def _by(own: tuple[Label, ...], labels: tuple[Label, ...]) -> tuple[Label, ...]:
    """Name units by a parameter's own ids where it carries some on the same axes."""
    mine = {label.axes: label for label in own}
    return tuple(mine.get(label.axes, label) for label in labels)


def _like_result(call: Call, tensors: list[Tensor]) -> Tensor | None:
    """Find the operand that the result looks like; the kernels for it are slow Python code."""
    if call.func._schema.name not in _PLAIN:
        return None
    largest = max(tensors, key=Tensor.numel)
    plain = largest.is_floating_point() and all(t.dtype is largest.dtype for t in tensors)
    return largest if plain and all(_fits(t, largest) for t in tensors) else None


def _fits(tensor: Tensor, largest: Tensor) -> bool:
    if tensor.ndim > largest.ndim:
        return False
    shape = largest.shape[largest.ndim - tensor.ndim :]
    return all(n in (1, full) for n, full in zip(tensor.shape, shape, strict=True))


@rule("bernoulli_", "normal_", "uniform_", "random_", "exponential_", "log_normal_", "bernoulli")
def noise(call: Call) -> Any:
    """Overwrite a tensor with noise of the same shape."""
    return _labelled(call, call.labels())


@rule("native_dropout", "_fused_dropout")
def dropout(call: Call) -> Any:
    """Scale and zero elements at random."""
    out, mask = call.run()
    return call.put(out, call.labels()), call.put(mask, call.labels())


@rule("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like")
def constant_like(call: Call) -> Tensor:
    """Make a tensor as large as another: it shrinks with it."""
    return call.put(call.run(), call.labels())


@rule("new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided")
def constant(call: Call) -> Tensor:
    """Make a tensor of a given size, which belongs to no unit."""
    return call.put(call.run(), ())


@rule("copy_")
def overwrite(call: Call) -> Any:
    """Overwrite a tensor. A view writes into its base, whose labels must already agree."""
    target, source = call.args[0], call.args[1]
    if target._base is not None:
        return pointwise(call)
    operands = call.operands([target, source], target.ndim)
    labels = operands[1].labels if source.shape == target.shape else couple(call.tape, operands)
    attach_info(target, Info(labels=labels))
    return target


def _labelled(call: Call, labels: tuple[Any, ...]) -> Any:
    """Run the operation and label its (first) result; in place, the operand is the result."""
    if call.func._schema.is_mutable:
        target = call.args[0]
        known = info_of(target)
        attach_info(target, Info(labels=labels, tensor=None, value=None, node=known.node))
        return target
    out = call.run()
    if isinstance(out, Tensor):
        return call.put(out, labels)
    call.put(out[0], labels)
    return out
