"""Taylor: a unit is as important as the square of the loss change that its removal should make.

Source: Molchanov, Mallya, Tyree, Frosio and Kautz, "Importance Estimation for Neural Network
Pruning", CVPR 2019 (arXiv 1906.10771). With a gate z_u = 1 that multiplies unit u,
removing the unit changes the loss by L(z_u = 0) - L(z_u = 1) = -dL/dz_u + 1/2 d2L/dz_u^2 - ...

Letters: U units over all families.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from secateur.gates import Gates, pairing
from secateur.methods.scores._live_units import only_live
from secateur.methods.scores._measuring import measuring, take_gradients
from secateur.methods.scores._protocol import Subject
from secateur.methods.scores._slices import slices_of, sum_over_units


class Taylor:
    """First order in the gates: the mean over batches of (dL/dz_u)^2, section 3.

    The gate sits where the unit is consumed. Behind a batch norm and a ReLU its derivative is
    gamma dL/dgamma + beta dL/dbeta, the paper's "Taylor-FO-BN". A unit that is used in several
    places, such as a channel of a residual stream, has one gate, and the derivatives of all uses
    add up: that is the derivative of the loss by the whole channel.

    Departures: gradients are taken in evaluation mode, of the network that will be used, and not
    during training; and a shared gate's score is not divided by a count of its uses, as the
    published code does with fixed numbers for ResNet-101.
    """

    needs_data = True

    def units(self, subject: Subject) -> Tensor:
        """Return the mean over batches of (dL/dz_u)^2 in nats squared; see `Score.units`."""
        gates = Gates(subject.model, subject.structure, subject.live)
        squares_U = torch.zeros(subject.structure.num_units, dtype=torch.float64)
        num_batches = 0
        with measuring(subject.model):
            for loss in subject.losses():
                take_gradients(subject.model, loss)
                gradient_U, _ = gates.gradients()
                squares_U += gradient_U.cpu().double().square()
                num_batches += 1
        return only_live(squares_U / num_batches, subject.live)

    def weights(self, subject: Subject, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean over batches of (w dL/dw)^2; see `WeightScore.weights`."""
        squares = _squared_products(subject, masks)
        return {name: squares[name] * (mask != 0) for name, mask in masks.items()}


class TaylorWeights:
    """First order in the weights: the sum of (w dL/dw)^2 over what makes a unit, section 3.

    What makes a unit are the slices of parameters in front of it: rows of weights, biases, scales
    and shifts of norms. Unlike the gates' it is a sum of squares, as if weights were removed one by
    one, which is why rows in front of a batch norm count although scaling them changes nothing.
    """

    needs_data = True

    def units(self, subject: Subject) -> Tensor:
        """Return the mean over batches of the sum of (w dL/dw)^2; see `Score.units`."""
        structure, live = subject.structure, subject.live
        names = [name for name, _ in subject.model.named_parameters()]
        squares = _squared_products(subject, names)
        making = (part for part in slices_of(structure, live) if not part.consumes)
        return only_live(sum_over_units(making, squares, structure.num_units), live)


def _squared_products(subject: Subject, names: Collection[str]) -> dict[str, Tensor]:
    """Average (w dL/dw)^2 over batches.

    Args:
        subject: The model.
        names: Parameters that are wanted.

    Returns:
        Name to a tensor of the parameter's shape, float64: squares of what a deep network passes
        back are below the smallest float32. 0 where the loss does not depend on it.
    """
    parameters = {name: p for name, p in subject.model.named_parameters() if name in names}
    squares = {
        name: torch.zeros_like(p.detach(), dtype=torch.float64) for name, p in parameters.items()
    }
    num_batches = 0
    with measuring(subject.model):
        for loss in subject.losses():
            take_gradients(subject.model, loss)
            num_batches += 1
            for name, parameter in parameters.items():
                if parameter.grad is not None:
                    squares[name] += pairing(parameter.detach(), parameter.grad).double().square()
    return {name: square / num_batches for name, square in squares.items()}
