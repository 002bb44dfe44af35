"""A removal rehearsed on a copy without data, so that what surgery would refuse is known before."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from secateur.structure import Decision, Structure, named_tensors
from secateur.surgery._cut import cut_


def rehearse(model: nn.Module, structure: Structure) -> None:
    """Remove one unit of every family and then every layer from a copy on the meta device.

    The copy takes no memory for weights. A model that cannot be copied is not rehearsed: the same
    check runs at its first removal.

    Args:
        model: The model, as it was traced; it is not changed.
        structure: What it is made of.

    Raises:
        MiswiredError: A smaller model would compute something else, or would not run.
    """
    memo: dict[int, object] = {
        id(tensor): _without_data(tensor)
        for tensor in named_tensors(model).values()
        if tensor.is_floating_point()
    }
    try:
        stand_in = copy.deepcopy(model, memo)
    except (RuntimeError, TypeError):
        return
    units = {
        number: torch.tensor([family.num_units // 2])
        for number, family in enumerate(structure.families)
        if family.num_units > family.fewest
    }
    live = structure.everything()
    for decision in (Decision(units=units), Decision(layers=tuple(range(structure.num_layers)))):
        if decision:
            live, _ = cut_(stand_in, structure, live, decision)


def _without_data(tensor: Tensor) -> Tensor:
    twin = torch.empty_like(tensor, device="meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(twin, requires_grad=tensor.requires_grad)
    return twin
