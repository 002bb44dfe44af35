"""Products of rows with the matrices of their groups, in every type."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def grouped_product(
    rows: Tensor, weights: Tensor, offs: Tensor | None = None, **options: Any
) -> Tensor:
    """Do as `torch._grouped_mm`, in float64, too, for which PyTorch has no kernel.

    Args:
        rows: ``[rows, inner]``, or ``[groups, rows, inner]``.
        weights: ``[groups, inner, outer]``.
        offs: Where each group of rows ends; rows behind the last one give zeros.
        **options: An added bias and a type of the result, which are not used in float64 so far.

    Returns:
        The products.
    """
    if rows.dtype is not torch.float64:
        result: Tensor = torch._grouped_mm(rows, weights, offs, **options)
        return result
    assert all(value is None for value in options.values())
    if offs is None:
        return rows @ weights
    out = rows.new_zeros(len(rows), weights.shape[2])
    start = 0
    for weight, stop in zip(weights, offs.tolist(), strict=True):
        out[start:stop] = rows[start:stop] @ weight
        start = stop
    return out
