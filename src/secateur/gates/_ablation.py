"""What a measurement of damage asks, and what it answers.

Letters: U units over all families, F families, V evaluations of each sample, R masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ablation:
    """What to measure in one forward pass.

    Attributes:
        off_VRU: True where a mask silences a unit, bool ``[V, R, U]``. Samples of the batch are
            dealt out to the R masks in equal, contiguous parts, and each sample is evaluated V
            times: two masks on one sample can be compared without the chance of the sample.
            A family with a consumer inside a fused call, such as a recurrent layer, gets the
            first mask for the whole batch; the others stay unmeasured for it.
        sampled: Families whose masks are measured.
        exact: Families for which inner products of single units are asked for instead.
    """

    off_VRU: Tensor
    sampled: frozenset[int] = frozenset()
    exact: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Damage:
    """What one forward pass said about the damage of masks.

    The damage of a mask in family f is ``change_VRF[v, r, f] / energy_RF[r, f]``: both are sums
    over all consumers, and the energy is the whole batch's, in proportion to the samples of r.
    It is 0 where silencing changes nothing, about 1 where the output is lost.

    Attributes:
        change_VRF: Squared norm of the change of the consumers' outputs, float64 ``[V, R, F]``.
        energy_RF: Squared norm of the outputs themselves; 0 where nothing was measured, as where
            one of the family's consumers was not met in a call that is known.
        grams: For every family that was asked for: inner products of what single units contribute
            to the outputs, float64 ``[U_f, U_f]``; the change of a set is the sum over it.
        gram_energy: Squared norm of the outputs of its consumers.
        quadratic: Families among the sampled whose inner products can be had: nothing but batch
            norms lies between their consumers and the place of comparison.
    """

    change_VRF: Tensor
    energy_RF: Tensor
    grams: Mapping[int, Tensor]
    gram_energy: Mapping[int, Tensor]
    quadratic: frozenset[int]
