"""Fused attention kernels: two contractions with a softmax between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from secateur.structure._coupling import Operand, aligned, contract, couple, reduced
from secateur.structure._label import Label
from secateur.structure._tape import Tape
from secateur.structure.rules._registry import Call, empty_like_shape, info_of, rule


@rule(
    "scaled_dot_product_attention",
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)
def attention(call: Call) -> Any:
    """Couple queries, keys and values over batch and heads; positions and depth are reduced."""
    query, key, value = call.args[:3]
    mask = next((a for a in (*call.args[3:], call.kwargs.get("attn_mask")) if _is(a)), None)
    key_labels, value_labels = (_repeated(t, query) for t in (key, value))
    batch = query.ndim - 2
    heads = tuple(query.shape[:-2])
    n, k, d, v = query.shape[-2], key.shape[-2], query.shape[-1], value.shape[-1]
    scale = call.kwargs.get("scale")
    if scale is not None:
        call.tape.nodes[-1].scalars += (scale,)
    frame = [*range(batch)]
    left = _place(info_of(query).labels, [*frame, batch, batch + 2], batch + 3)
    right = _place(key_labels, [*frame, batch + 1, batch + 2], batch + 3)
    scores = contract(
        call.tape,
        Operand(left, (*heads, n, 1, d)),
        Operand(right, (*heads, 1, k, d)),
        frozenset((batch + 2,)),
        None,
        (info_of(query).node, info_of(key).node),
    )
    scores = _place(scores, [*frame, batch, batch + 1, -1], batch + 2)
    if mask is not None:
        shape = (*heads, n, k)
        operands = [Operand(scores, shape), aligned(info_of(mask).labels, mask.shape, batch + 2)]
        scores = couple(call.tape, operands)
    scores = reduced(call.tape, scores, [batch + 1], "is normalised by a softmax")
    result = contract(
        call.tape,
        Operand(_place(scores, [*frame, batch, batch + 1], batch + 3), (*heads, n, k, 1)),
        Operand(_place(value_labels, [*frame, batch + 1, batch + 2], batch + 3), (*heads, 1, k, v)),
        frozenset((batch + 1,)),
        None,
    )
    out = empty_like_shape(query, (*heads, n, v))
    call.put(out, _place(result, [*frame, batch, -1, batch + 1], batch + 2))
    rest = len(call.func._schema.returns) - 1
    if rest == 0:
        return out
    return (out, *(torch.empty(0, device="meta") for _ in range(rest)))


def keep_scale(tape: Tape, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Fix the depth of queries and keys where PyTorch works the scale out from it.

    Args:
        tape: Where freezes go.
        args: Positional arguments of `torch.nn.functional.scaled_dot_product_attention`.
        kwargs: Its keyword arguments.
    """
    if kwargs.get("scale") is not None:
        return
    given = dict(zip(("query", "key"), args, strict=False)) | dict(kwargs)
    for tensor in (given["query"], given["key"]):
        depth = [y for y in info_of(tensor).labels if y.axes == {tensor.ndim - 1}]
        tape.freeze(depth, "sets the scale of the attention, since the model's code gives none")


def _is(argument: Any) -> bool:
    return isinstance(argument, Tensor)


def _place(labels: Any, target: list[int], ndim: int) -> tuple[Label, ...]:
    return tuple(y.moved(target, ndim) for y in labels)


def _repeated(tensor: Tensor, query: Tensor) -> tuple[Label, ...]:
    """Repeat key or value heads that are shared by several query heads."""
    labels = info_of(tensor).labels
    if tensor.ndim < 3 or tensor.shape[-3] == query.shape[-3]:
        return labels
    axis = tensor.ndim - 3
    times = query.shape[-3] // tensor.shape[-3]
    return tuple(
        Label(np.repeat(y.ids, times, axis=axis) if axis in y.axes else y.ids, y.axes, y.major)
        for y in labels
    )
