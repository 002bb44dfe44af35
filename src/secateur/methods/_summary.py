"""What a run writes down: tensors as names and plain numbers.

Letters: U units, L layers, F families, S structures (units, then layers).
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.methods._nesting import Nesting
from secateur.methods._probes import Measurements
from secateur.structure import Decision, Structure

_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)


def as_decision(
    structure: Structure, nesting: Nesting, going_S: Tensor, gone_S: Tensor
) -> Decision:
    """Return what has to go as a decision.

    Args:
        structure: Families and layers.
        nesting: Which structures lie in which layers.
        going_S: True for what has to go.
        gone_S: True for what has gone.

    Returns:
        Units and layers; what vanishes with a layer of the decision is not listed.
    """
    num_units = structure.num_units
    alone_S = going_S & ~gone_S & ~nesting.covered((going_S | gone_S)[num_units:])
    units_U, layers_L = alone_S[:num_units].cpu(), alone_S[num_units:].cpu()
    units = {}
    for family, start in enumerate(structure.offsets[:-1]):
        numbers = torch.nonzero(units_U[start : structure.offsets[family + 1]]).flatten()
        if len(numbers):
            units[family] = numbers
    return Decision(units=units, layers=tuple(torch.nonzero(layers_L).flatten().tolist()))


def record(
    structure: Structure, price: float, chance_S: Tensor, left_S: Tensor
) -> dict[str, object]:
    """Summarise a step.

    Args:
        structure: Families, layers and cost.
        price: nu.
        chance_S: Probabilities, 0 for what is gone.
        left_S: False for what is gone.

    Returns:
        Price, expected shares of the starting network's MACs and parameters, and for every family
        minimum, quartiles, maximum and number of what is left, and for every layer its phi.
    """
    chance_S, left_S = chance_S.cpu(), left_S.cpu()
    num_units = structure.num_units
    theta: dict[str, list[float]] = {}
    for number, family in enumerate(structure.families):
        part = slice(structure.offsets[number], structure.offsets[number + 1])
        left = chance_S[part][left_S[part]]
        points = left.new_tensor(_QUANTILES)
        quantiles = left.quantile(points).tolist() if len(left) else [0.0] * len(_QUANTILES)
        theta[family.name] = [*quantiles, len(left)]
    phi = zip(structure.layers, chance_S[num_units:].tolist(), strict=True)
    cost, halves = structure.cost, (chance_S[:num_units], chance_S[num_units:])
    return {
        "price": price,
        "expected_macs_share": float(cost.macs.expectation(*halves)) / cost.macs.value(),
        "expected_params_share": float(cost.params.expectation(*halves)) / cost.params.value(),
        "theta": theta,
        "phi": {layer.name: value for layer, value in phi},
    }


def calibration(structure: Structure, measured: Measurements) -> dict[str, object]:
    """Return what probes found out.

    Args:
        structure: Families and layers.
        measured: Results of the probes.

    Returns:
        ``factor``: what each measured family's curvature is multiplied with; ``layers``: rise of
        the loss in nats without each measured layer.
    """
    factors = zip(
        structure.families, measured.factor().tolist(), measured.sums_F2.tolist(), strict=True
    )
    rises = zip(structure.layers, measured.rise_L.tolist(), measured.count_L.tolist(), strict=True)
    return {
        "factor": {family.name: factor for family, factor, sums in factors if sums[1] > 0},
        "layers": {layer.name: rise for layer, rise, count in rises if count > 0},
    }


def worth_by_name(structure: Structure, worth_S: Tensor, decision: Decision) -> dict[str, float]:
    """Return the relative worth of what a decision takes.

    Args:
        structure: Families and layers.
        worth_S: Relative worth.
        decision: Units and layers.

    Returns:
        Family or layer name to worth, the mean over the units that go.
    """
    named = {}
    for family, units in decision.units.items():
        mean = worth_S[structure.offsets[family] + units.cpu()].mean()
        named[structure.families[family].name] = float(mean)
    for layer in decision.layers:
        named[structure.layers[layer].name] = float(worth_S[structure.num_units + layer])
    return named
