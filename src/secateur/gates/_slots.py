"""Where gates act: the axes of parameters whose slices silence units, the ones that close layers.

Letters: U units over all families, L layers, P positions left on an axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.structure import Live, Structure


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slot:
    """One factor that gates put on a parameter.

    Attributes:
        tensor: Canonical name of the parameter.
        axis: The axis whose slices are multiplied, or None for the whole parameter.
        gate: Number of the gate that multiplies each position, int64 ``[P]`` (``[1]`` where
            ``axis`` is None): units first, then layers, and U + L where no gate acts.
    """

    tensor: str
    axis: int | None
    gate: Tensor


def find_slots(structure: Structure, live: Live) -> tuple[Slot, ...]:
    """Find every place where a live unit or layer can be silenced.

    Args:
        structure: What the model is made of.
        live: What is left of it.

    Returns:
        Slots in the positions that the smaller model has.
    """
    gone = _gone_tensors(structure, live)
    slots = [slot for slot in _unit_slots(structure, live) if slot.tensor not in gone]
    for number, layer in enumerate(structure.layers):
        if live.layers[number]:
            gate = torch.tensor([structure.num_units + number])
            slots += [
                Slot(tensor=name, axis=None, gate=gate)
                for name in layer.closing
                if name not in gone
            ]
    return tuple(slots)


def _gone_tensors(structure: Structure, live: Live) -> frozenset[str]:
    gone = [
        layer.tensors
        for layer, alive in zip(structure.layers, live.layers.tolist(), strict=True)
        if not alive
    ]
    return frozenset().union(*gone)


def _unit_slots(structure: Structure, live: Live) -> Iterator[Slot]:
    nothing = structure.num_units + structure.num_layers
    owners: dict[tuple[str, int], list[Tensor]] = {}
    alive: dict[tuple[str, int], Tensor] = {}
    for family, offset, mask_U in zip(
        structure.families, structure.offsets, live.units, strict=False
    ):
        for member in family.members:
            place = (member.tensor, member.axis)
            size = structure.tensors[member.tensor].shape[member.axis]
            left = alive.setdefault(place, torch.ones(size, dtype=torch.bool))
            left[member.index[~mask_U].flatten()] = False
            if member.consumes:
                layers = owners.setdefault(place, [])
                number_UK = offset + torch.arange(family.num_units).unsqueeze(1)
                _claim(layers, member.index, number_UK, size, nothing)
    for place, layers in owners.items():
        for owner in layers:
            yield Slot(tensor=place[0], axis=place[1], gate=owner[alive[place]])


def _claim(
    layers: list[Tensor], index_UK: Tensor, number_UK: Tensor, size: int, nothing: int
) -> None:
    """Write units into the first layer of the axis where all their positions are free.

    Several families share an axis behind a concatenation, each with its own positions: one layer.
    Two units on one position both silence it: two factors, two layers.
    """
    for layer in layers:
        if bool((layer[index_UK] == nothing).all()):
            break
    else:
        layer = torch.full((size,), nothing)
        layers.append(layer)
    layer[index_UK] = number_UK.expand_as(index_UK)
