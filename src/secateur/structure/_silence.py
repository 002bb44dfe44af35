"""What zeros and widths become on their way through operations that stay when a branch goes."""

from __future__ import annotations

ADDITIONS = {"aten.add", "aten.add_"}

PRODUCTS = {
    "aten.addmm", "aten.baddbmm", "aten.bmm", "aten.convolution", "aten.linear", "aten.mm",
    "aten._grouped_mm", "aten.einsum",
}  # fmt: skip
"""Operations that multiply by a weight and sum."""

SHAPELESS = {
    "aten.relu", "aten.relu_", "aten.gelu", "aten.silu", "aten.silu_", "aten.tanh", "aten.hardtanh",
    "aten.hardtanh_", "aten.hardswish", "aten.hardswish_", "aten.leaky_relu", "aten.leaky_relu_",
    "aten.native_dropout", "aten.dropout", "aten.clone", "aten.alias", "aten.detach", "aten.elu",
    "aten.mish", "aten._to_copy", "aten.sigmoid", "aten.flip", "aten.roll",
}  # fmt: skip
"""Operations on one tensor that run at any shape, and keep it."""

PLAIN = {
    "aten.add", "aten.div", "aten.mul", "aten.neg", "aten.pow", "aten.rsub", "aten.sub",
}  # fmt: skip
"""Arithmetic that runs at any shape on tensors of one shape and on numbers, and keeps it."""

KEEPS_ZERO = {
    "aten.alias", "aten.celu", "aten.clone", "aten.contiguous",
    "aten.detach", "aten.div", "aten.div_", "aten.dropout", "aten.elu", "aten.elu_", "aten.expand",
    "aten.gelu", "aten.hardswish", "aten.hardswish_", "aten.hardtanh", "aten.hardtanh_",
    "aten.index", "aten.neg",
    "aten.leaky_relu", "aten.leaky_relu_", "aten.mish", "aten.mish_", "aten.native_dropout",
    "aten.flip", "aten.permute", "aten.relu", "aten.relu_", "aten.reshape", "aten.roll",
    "aten.select", "aten.silu",
    "aten.silu_", "aten.slice", "aten.squeeze", "aten.sum", "aten.t", "aten.tanh", "aten.transpose",
    "aten.unsqueeze", "aten.view", "aten._to_copy", "aten._unsafe_view",
}  # fmt: skip
"""Operations that turn zeros into zeros."""

VIEWS = {
    "aten.alias", "aten.detach", "aten.expand", "aten.permute", "aten.select", "aten.slice",
    "aten.split", "aten.squeeze", "aten.t", "aten.transpose", "aten.unbind", "aten.unsqueeze",
    "aten.view",
}  # fmt: skip
"""Operations whose result shares memory with their operand."""
