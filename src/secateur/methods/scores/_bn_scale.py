"""BN scale: a unit is as important as the factor its batch norm multiplies it with.

Source: Liu, Li, Shen, Huang, Yan and Zhang, "Learning Efficient Convolutional Networks through
Network Slimming", ICCV 2017 (arXiv 1708.06519), section 3: the factors of all layers share one
threshold. The network should have been trained with an L1 penalty on them.

Letters: U units over all families.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from secateur.errors import UsageError
from secateur.methods.scores._live_units import only_live
from secateur.methods.scores._protocol import Subject
from secateur.methods.scores._slices import slices_of, sum_over_units


class BNScale:
    """Scores units by |gamma|; units that pass no batch norm are never to go.

    A channel of a residual stream passes several batch norms: the mean of their |gamma| counts.
    """

    needs_data = False

    def units(self, subject: Subject) -> Tensor:
        """Return the mean |gamma| over a unit's positions in batch norms; see `Score.units`.

        Args:
            subject: The model.

        Returns:
            ``[U]``.

        Raises:
            UsageError: No unit passes a batch norm.
        """
        structure, live = subject.structure, subject.live
        names = _scales(subject.model)
        scales = {
            name: parameter.detach().abs()
            for name, parameter in subject.model.named_parameters()
            if name in names
        }
        ones = {name: torch.ones_like(scale) for name, scale in scales.items()}
        total_U = sum_over_units(slices_of(structure, live), scales, structure.num_units)
        count_U = sum_over_units(slices_of(structure, live), ones, structure.num_units)
        if not count_U.any():
            raise UsageError(
                f"No removable unit of this {type(subject.model).__name__} passes a batch norm "
                "with a scale, which this score reads. Use another score, such as "
                'score="magnitude" or score="taylor".'
            )
        infinite_U = torch.full_like(total_U, torch.inf)
        return only_live(torch.where(count_U > 0, total_U / count_U, infinite_U), live)


def _scales(model: nn.Module) -> frozenset[str]:
    return frozenset(
        f"{path}.weight".removeprefix(".")
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.affine
    )
