"""Any score of single weights as a mask rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.errors import UsageError
from secateur.methods.mask_rules._select import check_share, without_share
from secateur.methods.scores import Subject, WeightScore, weight_score_named


@dataclass(frozen=True, slots=True, kw_only=True)
class ByScore:
    """Masks the least salient weights of all tensors together, ``ceil(share * d)`` of d left.

    Args:
        score: A score of single weights, or its name, such as ``snip`` or ``synflow``.
        subject: The model that is trained, with the data and the loss that the score needs.
        share: Part of the weights left that goes at every level, in (0, 1).
    """

    score: WeightScore | str
    subject: Subject
    share: float = 0.2

    def __post_init__(self) -> None:
        check_share(self.share, type(self).__name__)
        if isinstance(self.score, str):
            weight_score_named(self.score)

    def next_masks(
        self,
        weights: Mapping[str, Tensor],
        kept: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Choose the masks of the next level; see `MaskRule`."""
        score = weight_score_named(self.score) if isinstance(self.score, str) else self.score
        subject = dataclasses.replace(self.subject, generator=generator)
        saliency = score.weights(subject, kept)
        for name, mask in kept.items():
            if name not in saliency or saliency[name].shape != mask.shape:
                found = list(saliency[name].shape) if name in saliency else "nothing"
                raise UsageError(
                    f"{type(score).__name__} gave {found} for {name} of shape "
                    f"{list(mask.shape)}. A score of weights has to answer for every masked tensor."
                )
        on_device = {name: saliency[name].to(mask.device) for name, mask in kept.items()}
        return without_share(on_device, kept, self.share)
