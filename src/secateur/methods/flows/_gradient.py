"""Gradient flow: how large the gradient of each layer's weights is.

The quantity that InfCoP (2025, arXiv 2501.15592) plots and names; its public code compares
something else (see `GradientFlow`). Letters: L weight tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.masks import Masks, maskable
from secateur.methods.flows._protocol import Over
from secateur.methods.flows._undisturbed import device_of, undisturbed
from secateur.methods.scores import Loss
from secateur.structure import map_tensors

Stat = Literal["mean_abs", "l2"]


class GradientFlow:
    """Size of the gradient of every weight tensor, averaged over a fixed set of batches.

        g_l = mean over batches B of  mean over entries of | dLoss_B / dW_l |

    Norms are in evaluation mode. What is masked counts as zero. The gradients that training has
    accumulated are neither read nor changed.

    Departure: the public code runs no backward pass of its own. It reads the gradient that the
    last training batch left behind, and compares L2 norms of now with means of the reference, so
    that its criterion is in effect "the gradient norm of one batch is small".

    Args:
        model: The model.
        batches: What the loss understands; kept on the model's device.
        loss: Called with the model and one batch; returns the mean loss over the batch.
        masks: The masks of the model; None where nothing is masked.
        names: Qualified names of the weight tensors; None for those of linear, convolutional,
            attention and recurrent modules.
        stat: ``mean_abs`` as above, or ``l2``, the norm of the tensor's gradient.
        over: Whether ``mean_abs`` divides by ``all`` entries or by the ``alive`` ones, which are
            not masked.

    Raises:
        UsageError: A setting is unknown, there is no batch, or nothing takes a gradient.

    Example:
        >>> net = nn.Linear(1, 1, bias=False)
        >>> flow = GradientFlow(net, [torch.ones(4, 1)], lambda model, x: 3 * model(x).mean())
        >>> flow.measure().tolist()
        [3.0]
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Any],
        loss: Loss,
        *,
        masks: Masks | None = None,
        names: Sequence[str] | None = None,
        stat: Stat = "mean_abs",
        over: Over = "all",
    ) -> None:
        if stat not in _STATS or over not in ("all", "alive"):
            raise UsageError(
                f"GradientFlow got stat={stat!r} and over={over!r}. stat is "
                f"{' or '.join(map(repr, _STATS))}, over is 'all' or 'alive'."
            )
        found = maskable(model, names)
        self._parameters = {n: p for n, p in found.items() if p.requires_grad}
        device = device_of(model)
        self._batches = [map_tensors(lambda x: x.to(device), batch) for batch in batches]
        if not self._batches or not self._parameters:
            raise UsageError(
                f"GradientFlow got {len(self._batches)} batches and {len(self._parameters)} weight "
                "tensors that require a gradient. It needs at least one of each."
            )
        self._model = model
        self._loss = loss
        self._masks = masks
        self._stat = _STATS[stat]
        self._only_alive = over == "alive"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the L weight tensors."""
        return tuple(self._parameters)

    def measure(self) -> Tensor:
        """Measure the model as it is.

        Returns:
            g, ``[L]``, at least float32, on the model's device.
        """
        kept = {} if self._masks is None else self._masks.kept
        masks = [kept.get(name) for name in self._parameters]
        sizes = [
            mask.sum().clamp_min(1) if self._only_alive and mask is not None else p.numel()
            for mask, p in zip(masks, self._parameters.values(), strict=True)
        ]
        rows = []
        with undisturbed(self._model), torch.enable_grad():
            for batch in self._batches:
                gradients = self._gradients(batch)
                entries = [
                    grad if mask is None else grad.masked_fill(~mask, 0.0)
                    for grad, mask in zip(gradients, masks, strict=True)
                ]
                rows.append(torch.stack(list(map(self._stat, entries, sizes))))
        return torch.stack(rows).mean(dim=0)

    def _gradients(self, batch: Any) -> list[Tensor]:
        parameters = tuple(self._parameters.values())
        found = torch.autograd.grad(
            self._loss(self._model, batch), parameters, allow_unused=True, materialize_grads=True
        )
        return [grad.to(torch.promote_types(grad.dtype, torch.float32)) for grad in found]


def _mean_abs(gradient: Tensor, size: Tensor | int) -> Tensor:
    return gradient.abs().sum() / size


def _l2(gradient: Tensor, size: Tensor | int) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(gradient)
    return norm


_STATS: Mapping[str, Callable[[Tensor, Tensor | int], Tensor]] = {
    "mean_abs": _mean_abs,
    "l2": _l2,
}
