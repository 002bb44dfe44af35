"""The smallest weights go: of every tensor its share, or of all tensors together.

Frankle & Carbin, "The Lottery Ticket Hypothesis", ICLR 2019, arXiv 1803.03635; globally as in
Frankle et al., "Linear Mode Connectivity and the Lottery Ticket Hypothesis", ICML 2020,
arXiv 1912.05671. Letters: d weights left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.methods.mask_rules._select import (
    check_share,
    rounded_up,
    without_share,
    without_smallest,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Magnitude:
    """Masks the same share of what is left of every tensor.

    Of d weights those below the quantile go: ``ceil(share * (d - 1))``, so one always stays.

    Departure: the released code counts nonzero weights instead of those the mask keeps, so that a
    kept weight that happens to be zero is lost to the count.

    Args:
        share: Part of the weights left in a tensor that goes at every level, in (0, 1).
    """

    share: float = 0.2

    def __post_init__(self) -> None:
        check_share(self.share, type(self).__name__)

    def next_masks(
        self,
        weights: Mapping[str, Tensor],
        kept: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Choose the masks of the next level; see `MaskRule`."""
        masks: dict[str, Tensor] = {}
        for name, mask in kept.items():
            count = rounded_up(self.share, max(0, int(mask.sum()) - 1))
            masks |= without_smallest({name: weights[name].abs()}, {name: mask}, count)
        return masks


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalMagnitude:
    """Masks a share of what is left of all tensors together, ``ceil(share * d)`` weights.

    Small late layers keep more than large ones. Where one layer's weights are much smaller than the
    others', as in wide late layers at high compression, it may be emptied: the levels' record
    names such tensors.

    Departure: the released code masks one weight more than it counts, and lets weights that it
    does not mask count as candidates. Both change less than one weight in 10,000.

    Args:
        share: Part of the weights left that goes at every level, in (0, 1).
    """

    share: float = 0.2

    def __post_init__(self) -> None:
        check_share(self.share, type(self).__name__)

    def next_masks(
        self,
        weights: Mapping[str, Tensor],
        kept: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Choose the masks of the next level; see `MaskRule`."""
        magnitudes = {name: weights[name].abs() for name in kept}
        return without_share(magnitudes, kept, self.share)
