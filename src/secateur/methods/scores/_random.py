"""Random scores: the control that every other score has to beat.

Letters: U units over all families.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from secateur.methods.scores._live_units import only_live
from secateur.methods.scores._protocol import Subject


class Random:
    """Scores units, or weights, by independent uniform numbers."""

    needs_data = False

    def units(self, subject: Subject) -> Tensor:
        """Draw one number in [0, 1) a unit; see `Score.units`."""
        drawn_U = torch.rand(subject.structure.num_units, generator=subject.generator)
        return only_live(drawn_U, subject.live)

    def weights(self, subject: Subject, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Draw one number in (0, 1] a weight that is left; see `WeightScore.weights`."""
        return {
            name: (1 - torch.rand(mask.shape, generator=subject.generator)).to(mask.device)
            * (mask != 0)
            for name, mask in masks.items()
        }
