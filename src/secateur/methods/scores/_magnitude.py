"""Magnitude: a unit is as important as its weights are large.

Sources: L1 norm of a filter, Li, Kadav, Durdanovic, Samet and Graf, "Pruning Filters for Efficient
ConvNets", ICLR 2017 (arXiv 1608.08710), section 3.1; norm over all coupled slices, Fang, Ma, Song,
Mi and Wang, "DepGraph", CVPR 2023 (arXiv 2301.12900), section 3.3; single weights, Han, Pool, Tran
and Dally, NeurIPS 2015 (arXiv 1506.02626).

Letters: U units over all families.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from secateur.methods.scores._live_units import only_live
from secateur.methods.scores._protocol import Subject
from secateur.methods.scores._slices import slices_of, sum_over_units


class Magnitude:
    """Scores units by the norm of all weights that leave with them, relative to their family.

    Departure: the sources rank within a layer, to ratios the user gives. Here the norm is divided
    by its mean over the family, as norms of layers differ by their size and initialisation, and
    then ranked over all families. Parameters of one axis (biases, scales of norms) do not count:
    they are on another scale than weights.

    Args:
        power: 1 for the sum of absolute values, 2 for the Euclidean norm.
    """

    needs_data = False

    def __init__(self, power: Literal[1, 2] = 2) -> None:
        self._power = power

    def units(self, subject: Subject) -> Tensor:
        """Return (sum over coupled slices of |w|^p)^(1/p) over its family's mean, ``[U]``."""
        structure, live = subject.structure, subject.live
        weights = {
            name: parameter.detach().abs() ** self._power
            for name, parameter in subject.model.named_parameters()
            if parameter.dim() > 1
        }
        sums_U = sum_over_units(slices_of(structure, live), weights, structure.num_units)
        norm_U = sums_U ** (1 / self._power)
        for family, live_U in enumerate(live.units):
            part = slice(structure.offsets[family], structure.offsets[family + 1])
            mean = norm_U[part][live_U].mean()
            if mean > 0:
                norm_U[part] /= mean
        return only_live(norm_U, live)

    def weights(self, subject: Subject, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return |w|^p, not normalised by layer; see `WeightScore.weights`."""
        parameters = dict(subject.model.named_parameters())
        with torch.no_grad():
            return {
                name: parameters[name].abs() ** self._power * (mask != 0)
                for name, mask in masks.items()
            }
