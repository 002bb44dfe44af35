"""Taking positions out of a tensor that others hold on to: same object, fewer entries."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from secateur.surgery._journal import Journal

Axes = Mapping[int, Tensor]
"""Axis to the positions that stay, ascending, int64."""

_BLOCK = 1 << 20
"""Elements that are picked from at a time in large tensors: they stay in the processor's cache."""


def shrink_(tensor: Tensor, axes: Axes, journal: Journal) -> None:
    """Keep some positions of a parameter or buffer, and of its gradient.

    The object keeps its identity, and with it ties, hooks, ``requires_grad`` and its places in
    optimizers.

    Args:
        tensor: The parameter or buffer.
        axes: What stays on each axis that loses something.
        journal: Where the way back is noted.
    """
    grad = tensor.grad if tensor.is_leaf else None
    journal.note(partial(_assign_, tensor, tensor.data, grad))
    _assign_(tensor, selected(tensor.data, axes), None if grad is None else selected(grad, axes))


def selected(tensor: Tensor, axes: Axes) -> Tensor:
    """Return the positions of a tensor that stay, in the memory format it had.

    Args:
        tensor: Any tensor, sparse ones included.
        axes: What stays on each axis that loses something.

    Returns:
        A new tensor that shares no memory with ``tensor``.
    """
    # Rows first: they are copied whole, and leave less to pick from.
    ordered = {axis: axes[axis].to(tensor.device) for axis in sorted(axes)}
    if tensor.layout != torch.strided:
        return _picked(tensor.detach(), ordered)
    if len(axes) > 1 and 0 in axes and tensor.numel() > _BLOCK:
        return _laid_out_like(tensor, _picked_in_blocks(tensor.detach(), ordered))
    return _laid_out_like(tensor, _picked(tensor.detach(), ordered))


def _picked(tensor: Tensor, axes: Axes) -> Tensor:
    for axis, kept in axes.items():
        tensor = tensor.index_select(axis, kept)
    return tensor


def _picked_in_blocks(tensor: Tensor, axes: Axes) -> Tensor:
    """Pick from a large tensor without another one in between, which takes most of the time."""
    shape = [len(axes[a]) if a in axes else n for a, n in enumerate(tensor.shape)]
    result = tensor.new_empty(shape)
    others = {axis: kept for axis, kept in axes.items() if axis}
    num_rows = max(1, _BLOCK // max(1, tensor[0].numel()))
    for block, rows in zip(result.split(num_rows), axes[0].split(num_rows), strict=True):
        block.copy_(_picked(tensor.index_select(0, rows), others))
    return result


def _assign_(tensor: Tensor, data: Tensor, grad: Tensor | None) -> None:
    # Autograd checks gradients against the shape the parameter had when its accumulator was made,
    # and an accumulator lives as long as somebody holds a graph or the accumulator itself. Setting
    # .data makes autograd forget it only where the dtype changes, so that happens in between;
    # without it the next backward fails with "expected shape compatible with" the old one.
    if tensor.is_leaf:
        tensor.grad = None
    if tensor.requires_grad:
        other = torch.float16 if tensor.dtype == torch.float32 else torch.float32
        tensor.data = torch.empty(0, dtype=other, device=tensor.device)
    tensor.data = data
    if grad is not None:
        tensor.grad = grad


def _laid_out_like(old: Tensor, new: Tensor) -> Tensor:
    """Order axes in memory as those of ``old``: channels last stays channels last."""
    step_of = old.stride()
    order = sorted(range(old.dim()), key=lambda axis: -step_of[axis])
    if order == list(range(old.dim())):
        return new
    strides, step = [0] * new.dim(), 1
    for axis in reversed(order):
        strides[axis], step = step, step * new.shape[axis]
    result = torch.empty_strided(new.shape, strides, dtype=new.dtype, device=new.device)
    return result.copy_(new)
