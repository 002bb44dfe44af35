"""SynFlow: how much of the synaptic flow, the weight of all paths, runs through a unit.

Source: Tanaka, Kunin, Yamins and Ganguli, "Pruning neural networks without any data by iteratively
conserving synaptic flow", NeurIPS 2020 (arXiv 2006.05467), section 6. With R the sum of outputs of
the network of absolute parameters for an input of ones, the score of theta is theta dR/dtheta.
Scores are conserved: over the weights into a hidden unit they sum to what they sum to over the
weights out of it, and over every layer that all paths cross to R, if there are no biases.

Letters: U units over all families.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.gates import Gates
from secateur.methods.scores._live_units import only_live
from secateur.methods.scores._measuring import measuring, sensitivities
from secateur.methods.scores._positive import PositiveForward
from secateur.methods.scores._protocol import Subject
from secateur.structure import map_tensors, tensors_in
from secateur.surgery import copy_of


class SynFlow:
    """Scores units and weights by the flow through them; needs no data.

    All happens on a float64 copy: the model is not touched, and the flow of deep networks, 1e34 in
    a VGG-19, neither overflows nor loses digits. Prune in many rounds: in one, whole layers would
    go, as the layer with the most weights has the smallest scores.

    Departures: norms multiply by their positive scale and shift nothing, so that the laws hold for
    trained networks, too, where the published code takes the absolute values of statistics and
    shifts; activations that are not linear on positive numbers pass them on as they are.
    """

    needs_data = False

    def units(self, subject: Subject) -> Tensor:
        """Return the flow through each unit, z_u dR/dz_u of its gate; see `Score.units`."""
        model = positive_copy(subject.model)
        gates = Gates(model, subject.structure, subject.live)
        with measuring(model):
            flow(model, subject.structure.example).backward()
            flow_U, _ = gates.gradients()
        return only_live(flow_U.abs(), subject.live)

    def weights(self, subject: Subject, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return |theta dR/dtheta| in the masked network; see `WeightScore.weights`."""
        model = positive_copy(subject.model)
        parameters = dict(model.named_parameters())
        for name, mask in masks.items():
            parameters[name].data *= mask != 0
        with measuring(model):
            flow(model, subject.structure.example).backward()
            return sensitivities(model, masks)


def positive_copy(model: nn.Module) -> nn.Module:
    """Copy a model in float64 with absolute parameters and buffers.

    Args:
        model: The model.

    Returns:
        The copy.
    """
    copy = copy_of(model).double()
    for tensor in (*copy.parameters(), *copy.buffers()):
        if tensor.is_floating_point():
            # Masks of attention hold -inf.
            tensor.data = tensor.data.abs().nan_to_num(posinf=0.0)
    return copy


def flow(model: nn.Module, example: tuple[tuple[Any, ...], dict[str, Any]]) -> Tensor:
    """Sum the outputs of a positive network for an input of ones.

    Args:
        model: What `positive_copy` returned, in evaluation mode.
        example: Arguments of the forward; floating-point tensors in it count for their shape only.

    Returns:
        R, a scalar in float64 with a gradient.

    Raises:
        UsageError: No flow reaches the output, or too much for float64.
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def ones(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            return torch.ones(tensor.shape, dtype=torch.float64, device=device)
        return tensor.to(device)

    args, kwargs = map_tensors(ones, example)
    with PositiveForward():
        output = model(*args, **kwargs)
    outputs = [t for t in tensors_in(output) if t.is_floating_point() and t.requires_grad]
    total = torch.stack([t.sum() for t in outputs]).sum() if outputs else torch.zeros(())
    if not (0 < float(total.detach()) < float("inf")):
        raise UsageError(
            f"The synaptic flow of this {type(model).__name__} is {float(total.detach())}: its "
            "output for absolute weights and an input of ones has to be positive and finite. "
            "Weights that are all zero, or embeddings of padding in the example inputs, stop the "
            "flow; use other example inputs, or another score."
        )
    return total
