"""Masks the least salient weights: exact counts, on the device, ties in the order of positions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import torch
from torch import Tensor

from secateur.errors import UsageError


def surviving(values: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> Tensor:
    """Pool what belongs to the weights that are left.

    Args:
        values: One number a weight, by name.
        kept: Masks by name.

    Returns:
        ``[d]``, tensors in the order of the masks, at least float32, on the first one's device.

    Raises:
        UsageError: A value is NaN.
    """
    parts = [values[name][mask] for name, mask in kept.items()]
    device = parts[0].device
    pooled = torch.cat([p.to(device, torch.promote_types(p.dtype, torch.float32)) for p in parts])
    if bool(pooled.isnan().any()):
        odd = next(n for n, m in kept.items() if bool(values[n][m].isnan().any()))
        raise UsageError(
            f"{odd} holds NaN, so its weights cannot be ranked. Training has diverged, or a score "
            "has: lower the learning rate, or look at the score's data."
        )
    return pooled


def without_share(
    saliency: Mapping[str, Tensor], kept: Mapping[str, Tensor], share: float
) -> dict[str, Tensor]:
    """Mask ``ceil(share * d)`` of the d weights that are left, but never the last one.

    Args:
        saliency: One number a weight, by name; all tensors are one pool.
        kept: Masks by name.
        share: Part of one; of equal saliencies the first in order go.

    Returns:
        New masks.

    Raises:
        UsageError: A saliency is NaN.
    """
    left = sum(int(mask.sum()) for mask in kept.values())
    return without_smallest(saliency, kept, min(rounded_up(share, left), left - 1))


def without_smallest(
    saliency: Mapping[str, Tensor], kept: Mapping[str, Tensor], count: int
) -> dict[str, Tensor]:
    """Mask a number of the weights that are left, those of the smallest saliency.

    Args:
        saliency: One number a weight, by name.
        kept: Masks by name.
        count: How many to mask, fewer than are left; of equal ones, the first in order go.

    Returns:
        New masks.

    Raises:
        UsageError: A saliency is NaN.
    """
    if count <= 0:
        return {name: mask.clone() for name, mask in kept.items()}
    pooled = surviving(saliency, kept)
    threshold = pooled.kthvalue(count).values
    below, equal = pooled < threshold, pooled == threshold
    gone = below | (equal & (equal.cumsum(dim=0) <= count - below.sum()))
    sizes = [int(mask.sum()) for mask in kept.values()]
    masks = {}
    for (name, mask), gone_here in zip(kept.items(), gone.split(sizes), strict=True):
        masks[name] = mask.clone()
        masks[name][mask] = ~gone_here.to(mask.device)
    return masks


def rounded_up(share: float, number: int) -> int:
    """Take a share of a number, rounded up, as decimals: 0.2 of 15 is 3, not 3.0000000000000004.

    Args:
        share: Part of one.
        number: How many there are.

    Returns:
        Whole number.
    """
    return math.ceil(Fraction(str(share)) * number)


def check_share(share: float, of: str) -> None:
    """Refuse a share of weights that cannot be masked at every level.

    Args:
        share: Part of one.
        of: The rule's name, for the message.

    Raises:
        UsageError: It does not lie between 0 and 1.
    """
    if not 0 < share < 1:
        raise UsageError(
            f"{of}(share={share}) does not say which part of the remaining weights is masked at "
            "every level. Choose a number between 0 and 1, such as share=0.2."
        )
