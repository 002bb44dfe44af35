"""Packed sequences: padded batches without their padding, one time step after the other.

Letters: B batch, T time steps, N positions that are no padding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.errors import TraceError
from secateur.structure._label import Label
from secateur.structure.rules._registry import Call, empty_like_shape, info_of, rule


@rule("_pack_padded_sequence")
def pack(call: Call) -> tuple[Tensor, Tensor]:
    """Leave the padding of a batch out; ``[B, T, ...]`` or ``[T, B, ...]`` becomes ``[N, ...]``."""
    x, lengths_B = call.args[0], _known(call, call.args[1])
    if lengths_B.numel() == 0 or int(lengths_B.min()) <= 0 or bool((lengths_B.diff() > 0).any()):
        raise RuntimeError(f"lengths {lengths_B.tolist()} are not positive and in falling order")
    steps = torch.arange(int(lengths_B.max()))
    batch_sizes_T = (lengths_B > steps.unsqueeze(1)).sum(dim=1)
    out = empty_like_shape(x, (int(lengths_B.sum()), *x.shape[2:]))
    labels = _without(call, (0, 1))
    target = [-1, 0, *range(1, out.ndim)]
    call.put(out, [y.moved(target, out.ndim) for y in labels])
    # PyTorch insists that these are on the CPU.
    return out, batch_sizes_T


@rule("_pad_packed_sequence")
def pad(call: Call) -> tuple[Tensor, Tensor]:
    """Put the padding back; it belongs to no unit."""
    data, batch_sizes_T, batch_first = call.args[0], _known(call, call.args[1]), call.args[2]
    total = call.arg(4, "total_length", -1)
    steps, batch = max(len(batch_sizes_T), total), int(batch_sizes_T[0])
    lead = (batch, steps) if batch_first else (steps, batch)
    out = empty_like_shape(data, (*lead, *data.shape[1:]))
    target = [0, *range(2, out.ndim)]
    call.put(out, [y.moved(target, out.ndim) for y in _without(call, (0,))])
    lengths_B = (batch_sizes_T > torch.arange(batch).unsqueeze(1)).sum(dim=1)
    return out, lengths_B


def _without(call: Call, axes: tuple[int, ...]) -> list[Label]:
    """Keep the labels on other axes; time steps and batch change their places."""
    result = []
    for label in call.labels():
        if label.axes <= set(axes):
            call.tape.freeze([label], "lies along the time steps of a packed sequence")
        else:
            result.append(call.tape.join_along(label, axes))
    return result


def _known(call: Call, tensor: Tensor) -> Tensor:
    value = info_of(tensor).value
    if value is None:
        reason = call.tape.reason("the lengths of a packed sequence are computed from data")
        raise TraceError(
            f"The forward cannot be traced: {reason}. Expected lengths that are given with the "
            "inputs, as whole numbers. Pass them to the model, or do not pack the sequences."
        )
    return value
