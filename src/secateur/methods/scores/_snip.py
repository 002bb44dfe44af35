"""SNIP: what the loss of the untrained network is sensitive to.

Source: Lee, Ajanthan and Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity",
ICLR 2019 (arXiv 1810.02340), section 4. With an indicator c on a connection or unit,
its sensitivity is |dL/dc| at c = 1, one derivative over all the data.

Letters: U units over all families.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from secateur.gates import Gates
from secateur.methods.scores._live_units import only_live
from secateur.methods.scores._measuring import measuring, sensitivities
from secateur.methods.scores._protocol import Subject


class SNIP:
    """Scores units by |dL/dz_u| of their gates, and weights by |w dL/dw|.

    It differs from `Taylor` in that derivatives are averaged over batches before signs are dropped,
    and in that batch norms take their statistics from the batch, as in a network at the start of
    training. The published normalisation to a sum of one changes no ranking and is left out.
    """

    needs_data = True

    def units(self, subject: Subject) -> Tensor:
        """Return |dL/dz_u|, L the mean over batches; see `Score.units`."""
        gates = Gates(subject.model, subject.structure, subject.live)
        with measuring(subject.model, batch_statistics=True):
            _sum_gradients(subject)
            gradient_U, _ = gates.gradients()
        return only_live(gradient_U.abs(), subject.live)

    def weights(self, subject: Subject, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return |w dL/dw|, L the mean over batches; see `WeightScore.weights`."""
        with measuring(subject.model, batch_statistics=True):
            _sum_gradients(subject)
            found = sensitivities(subject.model, masks)
        return {name: found[name] * (mask != 0) for name, mask in masks.items()}


def _sum_gradients(subject: Subject) -> None:
    """Leave the gradient of the mean loss over batches in the parameters."""
    num_batches = 0
    for loss in subject.losses():
        num_batches += 1
        if loss.requires_grad:
            loss.backward()
    for parameter in subject.model.parameters():
        if parameter.grad is not None:
            parameter.grad /= num_batches
