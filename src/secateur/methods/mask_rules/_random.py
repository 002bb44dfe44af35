"""Random weights go: the control that every rule has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.methods.mask_rules._select import check_share, without_share


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomWeights:
    """Masks a share of what is left of all tensors together, ``ceil(share * d)``, at random.

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
        drawn = {
            name: torch.rand(mask.shape, generator=generator, dtype=torch.float64).to(mask.device)
            for name, mask in kept.items()
        }
        return without_share(drawn, kept, self.share)
