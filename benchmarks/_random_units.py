"""Which units a benchmark takes out of a model: some of every family, by chance."""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.structure import Decision, Structure


def random_units(structure: Structure, share: float) -> dict[int, Tensor]:
    """Draw a part of every family that can spare a unit, the same at every call.

    Args:
        structure: Structure of the model.
        share: Of the units of a family: at least one goes, and as many stay as the model needs.

    Returns:
        Family number to the units that go.
    """
    generator = torch.Generator().manual_seed(0)
    units = {}
    for number, family in enumerate(structure.families):
        spare = family.num_units - family.fewest
        count = min(max(round(share * family.num_units), 1), spare)
        if count > 0:
            units[number] = torch.randperm(family.num_units, generator=generator)[:count]
    return units


def random_part(structure: Structure, share: float) -> Decision:
    """Choose random units and every second layer, the same at every call.

    Args:
        structure: Structure of the model.
        share: Of the units of a family, as in `random_units`.

    Returns:
        What goes.
    """
    layers = tuple(range(0, structure.num_layers, 2))
    return Decision(units=random_units(structure, share), layers=layers)
