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
from secateur.methods.scores._live_units import live_units, only_live
from secateur.methods.scores._measuring import measuring
from secateur.methods.scores._protocol import Subject
from secateur.structure import Live

Gradients = tuple[Tensor | None, ...]


class TaylorSecondOrder:
    """Scores units by the mean over batches of (-g_u + 1/2 H_uu)^2, exact for quadratic losses.

    g is the gradient of a batch's loss by the gates. H_uu is averaged over batches before it is
    squared with the rest, since noise of the estimate would count as importance. For the same
    reason estimates are drawn towards their family's mean, by as much as they scatter from probe to
    probe more than from unit to unit. Where a model has no more live units than probes, unit
    vectors take the place of random signs, and the diagonal is exact.

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
        curvature = Curvature(subject.live, self._num_probes, subject.generator)
        first_U = torch.zeros(subject.structure.num_units, dtype=torch.float64)
        square_U = torch.zeros_like(first_U)
        num_batches = 0
        # The fused attention kernels have no second derivative.
        with measuring(subject.model), sdpa_kernel(SDPBackend.MATH):
            for loss in subject.losses():
                gradients = differentiable_gradients(loss, gates)
                gradient_U = _by_gate(gates, gradients)
                first_U += gradient_U
                square_U += gradient_U.square()
                curvature.measure(gates, gradients)
                num_batches += 1
        diagonal_U = curvature.diagonal()
        # The mean of (-g + H/2)^2, H being the same in every batch.
        score_U = (square_U - first_U * diagonal_U) / num_batches + diagonal_U.square() / 4
        return only_live(score_U.clamp(min=0.0), subject.live)


class Curvature:
    """Estimates the diagonal of the Hessian of the gates, batch by batch.

    Args:
        live: What is left of the model.
        num_probes: N, products with the Hessian a batch.
        generator: Where signs come from.
    """

    def __init__(self, live: Live, num_probes: int, generator: torch.Generator) -> None:
        self._live_U = live_units(live)
        self._sizes = [len(live_U) for live_U in live.units]
        self._num_probes = num_probes
        self._generator = generator
        self._exact = int(self._live_U.sum()) <= num_probes
        self._sum_U = torch.zeros(len(self._live_U), dtype=torch.float64)
        self._squares_U = torch.zeros_like(self._sum_U)
        self._count = 0

    def measure(self, gates: Gates, gradients: Gradients) -> None:
        """Add one batch.

        Args:
            gates: Gates of the model.
            gradients: What `differentiable_gradients` returned for the batch.
        """
        if self._exact:
            vectors_NU = torch.eye(len(self._live_U), dtype=torch.float64)[self._live_U]
            self._sum_U += sum(_probe(gates, gradients, vector_U) for vector_U in vectors_NU)
            self._count += 1
            return
        for _ in range(self._num_probes):
            signs_U = torch.randint(2, self._live_U.shape, generator=self._generator) * 2.0 - 1
            sample_U = _probe(gates, gradients, signs_U.double() * self._live_U)
            self._sum_U += sample_U
            self._squares_U += sample_U.square()
            self._count += 1

    def diagonal(self) -> Tensor:
        """Return the estimate, ``[U]`` in float64."""
        mean_U = self._sum_U / self._count
        if self._exact or self._count == 1:
            return mean_U
        noise_U = (self._squares_U / self._count - mean_U.square()) / (self._count - 1)
        parts = zip(*(t.split(self._sizes) for t in (mean_U, noise_U, self._live_U)), strict=True)
        return torch.cat([_shrunk(*part) for part in parts])


def _shrunk(mean_U: Tensor, noise_U: Tensor, live_U: Tensor) -> Tensor:
    """Draw estimates of one family towards their mean, by the share of noise in their variance."""
    if int(live_U.sum()) < 2:
        return mean_U
    middle = mean_U[live_U].mean()
    variance = mean_U[live_U].var()
    signal = (1 - noise_U[live_U].mean() / variance).clamp(min=0.0) if variance > 0 else 0.0
    return middle + signal * (mean_U - middle)


def differentiable_gradients(loss: Tensor, gates: Gates) -> Gradients:
    """Return the gradients of a loss by the gated weights, which can be differentiated again.

    Args:
        loss: A scalar.
        gates: Gates of the model.

    Returns:
        One tensor for each of ``gates.parameters``; None where the loss does not depend on it.
    """
    if not loss.requires_grad or not gates.parameters:
        return (None,) * len(gates.parameters)
    return torch.autograd.grad(loss, gates.parameters, create_graph=True, allow_unused=True)


def _probe(gates: Gates, gradients: Gradients, vector_U: Tensor) -> Tensor:
    """Return v * Hv, ``[U]``; refuses operations without a second derivative."""
    slope = sum(
        (
            (gradient * direction).sum()
            for gradient, direction in zip(gradients, gates.directions(vector_U), strict=True)
            if gradient is not None
        ),
        start=torch.zeros(()),
    )
    if not slope.requires_grad:
        return torch.zeros_like(vector_U)
    try:
        curvature = torch.autograd.grad(
            slope, gates.parameters, retain_graph=True, allow_unused=True
        )
    except RuntimeError as error:
        raise UsageError(
            f"The loss cannot be differentiated twice: {error}. Use a score that needs one "
            'derivative, such as score="taylor".'
        ) from error
    return vector_U * _by_gate(gates, curvature)


def _by_gate(gates: Gates, gradients: Gradients) -> Tensor:
    """Sum weight times gradient over the slices of every unit's gate, ``[U]`` in float64."""
    for parameter, gradient in zip(gates.parameters, gradients, strict=True):
        parameter.grad = None if gradient is None else gradient.detach()
    return gates.gradients()[0].cpu().double()
