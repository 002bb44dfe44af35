"""The arithmetic of halving: random halves of a search space, and the mean damage of each unit.

After X. Ding, G. Ding, Y. Guo, J. Han, C. Yan: "Approximated Oracle Filter Pruning for Destructive
CNN Width Optimization", ICML 2019, arXiv 1905.04748. T_c is the mean damage of the random halves
that contain unit c; the half with the smallest T is what may go.

Letters: S units of the search space, R rows (one random half each).
"""

from __future__ import annotations

import torch
from torch import Tensor


def draw_halves(num_space: int, num_rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw random halves, each with another that shares no unit with it.

    Args:
        num_space: S, at least 2.
        num_rows: R.
        generator: Source of randomness.

    Returns:
        Two bool tensors ``[R, S]`` with ``S // 2`` True in every row; where S is odd, one unit of
        a row is in neither.
    """
    num = num_space // 2
    keys_RS = torch.rand(num_rows, num_space, generator=generator, device=generator.device)
    order_RS = keys_RS.argsort(dim=1)
    first_RS = torch.zeros(num_rows, num_space, dtype=torch.bool, device=generator.device)
    second_RS = torch.zeros_like(first_RS)
    first_RS.scatter_(1, order_RS[:, :num], True)
    second_RS.scatter_(1, order_RS[:, num_space - num :], True)
    return first_RS, second_RS


def mean_damage(count_S: Tensor, cross_S: Tensor) -> Tensor:
    """Estimate T as published: the mean over the measured halves that contain each unit.

    Args:
        count_S: Number of these halves.
        cross_S: Sum of their damages.

    Returns:
        T ``[S]``; infinite for units that were in no half.
    """
    return torch.where(count_S > 0, cross_S / count_S, torch.inf)


def fitted_damage(moment_SS: Tensor, cross_S: Tensor) -> Tensor:
    """Estimate T from measured halves.

    Departure: the published T_c is the plain mean over the halves that contain c. Here a straight
    line ``damage = sum of b_c over the half`` is fitted, and T_c is what it says on average over
    all halves that contain c. With many halves both are the same, because all sets of one size are
    equally likely; with few, the fit takes out what the other units of a half happened to add.

    Args:
        moment_SS: How many of the measured halves contain both units, float64.
        cross_S: Sum of the damages of the halves that contain each unit, float64.

    Returns:
        T ``[S]``; infinite for units that were in no half.
    """
    seen_S = moment_SS.diagonal() > 0
    slope_S = torch.linalg.pinv(moment_SS, hermitian=True, rtol=1e-9) @ cross_S
    mean_S = _mean_over_halves(slope_S)
    return torch.where(seen_S, mean_S, torch.inf)


def exact_damage(gram_SS: Tensor) -> Tensor:
    """Work out T where the damage of a set is the sum of inner products over it.

    Args:
        gram_SS: Inner products of what single units contribute, over the energy of the whole.

    Returns:
        T ``[S]``, the mean over all halves that contain each unit.
    """
    num_space = len(gram_SS)
    num = num_space // 2
    own_S = gram_SS.diagonal()
    others_S = gram_SS.sum(dim=1) - own_S
    if num_space < 3:
        return own_S.clone()
    one = (num - 1) / (num_space - 1)
    two = one * (num - 2) / (num_space - 2)
    trace, rest = own_S.sum(), others_S.sum()
    return own_S + 2 * one * others_S + one * (trace - own_S) + two * (rest - 2 * others_S)


def _mean_over_halves(slope_S: Tensor) -> Tensor:
    num_space = len(slope_S)
    num = num_space // 2
    if num_space < 2:
        return slope_S
    return slope_S + (num - 1) / (num_space - 1) * (slope_S.sum() - slope_S)
