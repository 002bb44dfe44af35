"""Information flow: how strongly the units of each layer correlate with those of the next.

The quantity of InfCoP (2025, arXiv 2501.15592), as its public code computes it.
Letters: S samples, N units of a layer, A units of all layers, L layers in the order of their calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.methods.flows._layer_outputs import Inputs, LayerOutputs
from secateur.methods.flows._protocol import Over

# A unit whose deviation is below this share of its mean does not vary: it shows rounding.
ROUNDING = 1e-6
# Rows of a correlation matrix that exist at a time, for absolute flow.
ROWS = 256

Reduce = Literal["signed", "absolute"]


class InformationFlow:
    """Mean correlation between the units of consecutive layers, on a fixed set of inputs.

    With z the outputs of a layer, before norm and activation, averaged over places and standardised
    over the S samples, the flow from layer l to the next is

        Delta_l = 1 / (N_l N_l+1)  sum_ij  1/S sum_x z_l,i(x) z_l+1,j(x)

    and because the mean of an outer product is the product of the means,

        Delta_l = 1/S sum_x zbar_l(x) zbar_l+1(x),    zbar_l(x) = 1/N_l sum_i z_l,i(x)

    so no matrix of N_l x N_l+1 is ever made, and L - 1 numbers are all that leaves the device.
    |Delta_l| <= 1. A unit that does not vary (dead at high sparsity) has z = 0.

    Skip connections are not followed: layers are paired in the order of their calls. Leave shortcut
    convolutions out with ``layers`` if they stand between two layers of a branch.

    Departures from the public code: one pass instead of two, over a fixed set instead of all
    training images with new augmentation, so that two measurements differ by the network only;
    a unit counts as constant if it varies by less than a millionth of its mean, instead of by
    1e-6, so that the scale of a unit does not matter; variances are never negative.

    Args:
        model: The model, without wrappers that compile it. It is looked at as it is at each call.
        batches: What the model is called with: tensors, tuples of arguments or dicts of them,
            samples first; kept on the model's device. A few thousand training images without
            augmentation are enough.
        layers: Paths of the modules to pair; None for all linear and convolutional ones.
        reduce: ``signed`` as above; ``absolute`` averages |C_ij| instead, which sees changes
            that cancel, at the cost of the matrix products (in blocks, never stored).
        over: ``all`` divides by all units; ``alive`` by those that vary, so that dead units do not
            pull the flow towards 0.

    Raises:
        UsageError: A setting or path is unknown, or there are fewer than two samples.

    Example:
        >>> net = nn.Sequential(nn.Linear(3, 1), nn.ReLU(), nn.Linear(1, 1))
        >>> flow = InformationFlow(net, [torch.randn(50, 3)])
        >>> flow.measure().shape
        torch.Size([1])
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Inputs],
        *,
        layers: Sequence[str] | None = None,
        reduce: Reduce = "signed",
        over: Over = "all",
    ) -> None:
        if reduce not in _REDUCTIONS or over not in ("all", "alive"):
            raise UsageError(
                f"InformationFlow got reduce={reduce!r} and over={over!r}. reduce is "
                f"{' or '.join(map(repr, _REDUCTIONS))}, over is 'all' or 'alive'."
            )
        self._outputs = LayerOutputs(model, batches, layers)
        self._reduce = _REDUCTIONS[reduce]
        self._only_alive = over == "alive"

    @property
    def names(self) -> tuple[str, ...]:
        """Paths of the L layers in the order of their calls; empty before the first `measure`."""
        return self._outputs.names

    def measure(self) -> Tensor:
        """Measure the model as it is.

        Returns:
            Delta, ``[L - 1]``, float32 (float64 for a double model), on the model's device; NaN
            where an output is not finite.

        Raises:
            UsageError: The layers cannot be paired on these inputs.
        """
        outputs_SA = self._outputs.collect()
        scale_A, alive_A = _standardise_(outputs_SA)
        widths = list(self._outputs.widths)
        layers = outputs_SA.split(widths, dim=1)
        weights = [
            scale / (alive.sum().clamp_min(1) if self._only_alive else len(scale))
            for scale, alive in zip(scale_A.split(widths), alive_A.split(widths), strict=True)
        ]
        # The model may run in lower precision; these few products need not.
        with torch.autocast(outputs_SA.device.type, enabled=False):
            return self._reduce(layers, weights)


def _standardise_(outputs_SA: Tensor) -> tuple[Tensor, Tensor]:
    """Centre outputs in place; return what makes them of deviation 1, and what varies."""
    # E[x^2] - E[x]^2 would be negative for half of all constant units. Taking the first sample
    # away before the mean leaves exactly 0 of a constant.
    first_A = outputs_SA[0].clone()
    shift_A = outputs_SA.sub_(first_A).mean(dim=0)
    deviation_A = outputs_SA.sub_(shift_A).square().mean(dim=0).sqrt()
    mean_A = first_A + shift_A
    floor = torch.finfo(outputs_SA.dtype).tiny
    # Written so that NaN counts as alive, and shows.
    alive_A = ~(deviation_A <= (ROUNDING * mean_A.abs()).clamp_min(floor))
    return torch.where(alive_A, 1 / deviation_A, 0.0), alive_A


def _signed(layers: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    # zbar_l = 1/N_l sum_i z_l,i, without z itself
    zbar_LS = torch.stack([x_SN @ w_N for x_SN, w_N in zip(layers, weights, strict=True)])
    return (zbar_LS[:-1] * zbar_LS[1:]).mean(dim=1)


def _absolute(layers: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    pairs = zip(layers, weights, layers[1:], weights[1:], strict=False)
    return torch.stack([_mean_absolute(*pair) for pair in pairs])


def _mean_absolute(x_SN: Tensor, w_N: Tensor, y_SM: Tensor, v_M: Tensor) -> Tensor:
    total = x_SN.new_zeros(())
    for block_SR, w_R in zip(x_SN.split(ROWS, dim=1), w_N.split(ROWS), strict=True):
        moment_RM = (block_SR.T @ y_SM).abs() / len(x_SN)
        total = total + w_R @ moment_RM @ v_M
    return total


_REDUCTIONS: Mapping[str, Callable[[Sequence[Tensor], Sequence[Tensor]], Tensor]] = {
    "signed": _signed,
    "absolute": _absolute,
}
