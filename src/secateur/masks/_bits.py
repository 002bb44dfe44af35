"""Masks as bits: eight weights a byte, the first weight in the lowest bit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from secateur.errors import UsageError


def pack(mask: Tensor) -> Tensor:
    """Write a mask as bits.

    Args:
        mask: Bool, any shape, n entries.

    Returns:
        uint8 ``[ceil(n / 8)]`` on the mask's device; bits behind the last entry are 0.
    """
    flat = mask.flatten().to(torch.uint8)
    eights = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).view(-1, 8)
    return (eights << _places(mask.device)).sum(dim=1, dtype=torch.uint8)


def unpack(bits: Tensor, shape: Sequence[int]) -> Tensor:
    """Read a mask from bits.

    Args:
        bits: What `pack` returned.
        shape: Shape of the mask.

    Returns:
        Bool, of that shape, on the device of the bits.

    Raises:
        UsageError: The bits are not those of a mask of this shape.
    """
    size = torch.Size(shape)
    if bits.dtype != torch.uint8 or bits.shape != ((size.numel() + 7) // 8,):
        raise UsageError(
            f"A mask of shape {list(size)} is stored in {(size.numel() + 7) // 8} bytes, and this "
            f"is {bits.dtype} of shape {list(bits.shape)}. It belongs to another tensor; load "
            "masks into the model they were saved from."
        )
    flags = (bits.unsqueeze(1) >> _places(bits.device)) & 1
    return flags.flatten()[: size.numel()].view(size).bool()


def _places(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)
