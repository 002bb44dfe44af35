"""Masked weights as PyTorch's sparse tensors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor


def to_sparse(
    weights: Mapping[str, Tensor],
    kept: Mapping[str, Tensor],
    layout: Literal["coo", "csr"] = "coo",
) -> dict[str, Tensor]:
    """Write masked weights as sparse tensors that hold what is kept, zeros among it included.

    Args:
        weights: Weights by name, such as `Masks.weights`.
        kept: Masks by name, such as `Masks.kept`.
        layout: ``coo``: in the weight's shape, coalesced. ``csr``: rows are the first axis, all
            other axes are flattened into columns, as a convolution over patches reads them.

    Returns:
        Name to sparse tensor of the weight's dtype and device; copies.

    Example:
        >>> weight = {"w": torch.tensor([[1.0, 0.0], [0.0, 4.0]])}
        >>> to_sparse(weight, {"w": torch.eye(2).bool()})["w"].values().tolist()
        [1.0, 4.0]
    """
    write = _coo if layout == "coo" else _csr
    # Both says what PyTorch shall do and checks the indices made here.
    with torch.sparse.check_sparse_tensor_invariants(True):
        return {name: write(weights[name].detach(), mask) for name, mask in kept.items()}


def _coo(weight: Tensor, mask: Tensor) -> Tensor:
    index = mask.nonzero().T
    return torch.sparse_coo_tensor(index, weight[mask], weight.shape, is_coalesced=True)


def _csr(weight: Tensor, mask: Tensor) -> Tensor:
    rows = mask.reshape(len(mask), -1)
    starts = torch.nn.functional.pad(rows.sum(dim=1).cumsum(dim=0), (1, 0))
    columns = rows.nonzero()[:, 1]
    with warnings.catch_warnings():
        # PyTorch calls the layout a beta once a process; here it was asked for by name.
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(
            starts, columns, weight.reshape(rows.shape)[rows], rows.shape
        )
