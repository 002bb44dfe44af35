"""What a mask rule is given and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor


class MaskRule(Protocol):
    """Chooses which weights go next. Masks are nested: what is masked stays masked."""

    def next_masks(
        self,
        weights: Mapping[str, Tensor],
        kept: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Choose the masks of the next level.

        Args:
            weights: Trained weights by name.
            kept: Present masks by name, bool, in the weights' shapes, True where a weight is left.
            generator: The only source of randomness, on the CPU.

        Returns:
            New masks of the same names, shapes and devices.
        """
        ...
