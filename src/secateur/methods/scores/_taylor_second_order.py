"""Taylor to second order: the gates' gradient and the diagonal of their Hessian.

Sources: Molchanov, Mallya, Tyree, Frosio and Kautz, CVPR 2019 (arXiv 1906.10771), section 3;
estimate of the diagonal, Bekas, Kokiopoulou and Saad, "An estimator for the diagonal of a matrix",
Applied Numerical Mathematics 57 (2007): with independent signs v, E[v * H v] = diag H.

Letters: U units over all families, N probes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from secateur.errors import UsageError
from secateur.gates import Gates
from secateur.methods.scores._live_units import only_live
from secateur.methods.scores._measuring import measuring
from secateur.methods.scores._protocol import Subject


class TaylorSecondOrder:
    """Scores units by the mean over batches of (-g_u + 1/2 H_uu)^2, exact for quadratic losses.

    g is the gradient of a batch's loss by the gates. H_uu is averaged over batches before it is
    squared with the rest, since noise of the estimate would count as importance. Where a model has
    no more live units than probes, unit vectors take the place of random signs, and the diagonal is
    exact.

    Departure: the published code calls autograd once a gate and batch for the full row of the
    Hessian. Removing one unit needs the diagonal alone, which costs one more backward a probe.

    Args:
        num_probes: N, products with the Hessian a batch.

    Raises:
        UsageError: ``num_probes`` is below 1.
    """

    needs_data = True

    def __init__(self, num_probes: int = 16) -> None:
        if num_probes < 1:
            raise UsageError(
                f"num_probes={num_probes} estimates nothing. Pass 1 or more; 16 is the default."
            )
        self._num_probes = num_probes

    def units(self, subject: Subject) -> Tensor:
        """Return the mean over batches of (-g_u + 1/2 H_uu)^2; see `Score.units`."""
        gates = Gates(subject.model, subject.structure, subject.live)
        zeros_U = torch.zeros(subject.structure.num_units, dtype=torch.float64)
        first_U, square_U, diagonal_U = zeros_U.clone(), zeros_U.clone(), zeros_U.clone()
        num_batches = 0
        # The fused attention kernels have no second derivative.
        with measuring(subject.model), sdpa_kernel(SDPBackend.MATH):
            for loss in subject.losses():
                gradients = _gradients(loss, gates)
                gradient_U = _by_gate(gates, gradients)
                first_U += gradient_U
                square_U += gradient_U.square()
                diagonal_U += _diagonal(gates, gradients, self._probes(subject))
                num_batches += 1
        first_U, square_U, diagonal_U = (
            total / num_batches for total in (first_U, square_U, diagonal_U)
        )
        # mean of (-g + H/2)^2 with H constant
        score_U = square_U - first_U * diagonal_U + diagonal_U.square() / 4
        return only_live(score_U.clamp(min=0.0), subject.live)

    def _probes(self, subject: Subject) -> Tensor:
        """Return directions and, implicitly, weights: rows ``[N, U]`` whose v * Hv add up."""
        live_U = torch.cat([*subject.live.units, torch.ones(0, dtype=torch.bool)])
        if int(live_U.sum()) <= self._num_probes:
            return torch.eye(len(live_U), dtype=torch.float64)[live_U]
        shape = (self._num_probes, len(live_U))
        signs_NU = torch.randint(2, shape, generator=subject.generator).double() * 2 - 1
        probe_NU: Tensor = signs_NU * live_U / self._num_probes**0.5
        return probe_NU


def _gradients(loss: Tensor, gates: Gates) -> tuple[Tensor | None, ...]:
    if not loss.requires_grad or not gates.parameters:
        return (None,) * len(gates.parameters)
    return torch.autograd.grad(loss, gates.parameters, create_graph=True, allow_unused=True)


def _diagonal(gates: Gates, gradients: tuple[Tensor | None, ...], probe_NU: Tensor) -> Tensor:
    """Sum v * Hv over probes, ``[U]``."""
    total_U = torch.zeros(probe_NU.shape[1], dtype=torch.float64)
    for probe_U in probe_NU:
        slope = sum(
            (
                (gradient * direction).sum()
                for gradient, direction in zip(gradients, gates.directions(probe_U), strict=True)
                if gradient is not None
            ),
            start=torch.zeros(()),
        )
        if slope.requires_grad:
            curvature = torch.autograd.grad(
                slope, gates.parameters, retain_graph=True, allow_unused=True
            )
            total_U += probe_U * _by_gate(gates, curvature)
    return total_U


def _by_gate(gates: Gates, gradients: tuple[Tensor | None, ...]) -> Tensor:
    """Sum weight times gradient over the slices of every unit's gate, ``[U]`` in float64."""
    for parameter, gradient in zip(gates.parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else gradient.detach()
    return gates.gradients()[0].cpu().double()
