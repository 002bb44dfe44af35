"""Where the slices of live units lie in a model that has already lost some, and sums over them.

Letters: U units over all families, V live units of one family, K positions a unit holds on an axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.structure import Live, Structure


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slices:
    """What the live units of a family hold on one axis of one tensor, as it is now.

    Attributes:
        tensor: Canonical name of the parameter or buffer.
        axis: Axis of the tensor.
        unit: Number of each live unit among all units of the model, int64 ``[V]``.
        index: Its positions along the axis, int64 ``[V, K]``.
        consumes: As in `secateur.structure.Member`.
    """

    tensor: str
    axis: int
    unit: Tensor
    index: Tensor
    consumes: bool


def slices_of(structure: Structure, live: Live) -> Iterator[Slices]:
    """Find the slices of everything that is left.

    Args:
        structure: What the model was made of when it was traced.
        live: What is left of it.

    Yields:
        One entry a member of a family; none for tensors that left with a layer.
    """
    gone = frozenset[str]().union(
        *(
            layer.tensors
            for layer, alive in zip(structure.layers, live.layers.tolist(), strict=True)
            if not alive
        )
    )
    left = _left(structure, live)
    for number, (family, live_U) in enumerate(zip(structure.families, live.units, strict=True)):
        unit = structure.offsets[number] + torch.nonzero(live_U).flatten()
        for member in family.members:
            if member.tensor not in gone:
                position = left[member.tensor, member.axis].cumsum(0) - 1
                yield Slices(
                    tensor=member.tensor,
                    axis=member.axis,
                    unit=unit,
                    index=position[member.index[live_U]],
                    consumes=member.consumes,
                )


def sum_over_units(
    slices: Iterator[Slices], values: Mapping[str, Tensor], num_units: int
) -> Tensor:
    """Sum entries of tensors over the slices of every unit.

    An entry that lies in two slices of one unit, such as the weight from a channel of a residual
    stream to itself, counts twice.

    Args:
        slices: Where the units are.
        values: What is summed, by tensor name; slices of other tensors are left out.
        num_units: U.

    Returns:
        Sums on the CPU, float64, ``[U]``; 0 for units without a slice.
    """
    total_U = torch.zeros(num_units, dtype=torch.float64)
    for part in slices:
        value = values.get(part.tensor)
        if value is not None:
            others = [axis for axis in range(value.dim()) if axis != part.axis]
            along = value.sum(dim=others, dtype=torch.float64) if others else value.double()
            total_U.index_add_(0, part.unit, along.cpu()[part.index].sum(dim=1))
    return total_U


def _left(structure: Structure, live: Live) -> dict[tuple[str, int], Tensor]:
    """Mark the positions that are left on every axis that units hold."""
    left: dict[tuple[str, int], Tensor] = {}
    for family, live_U in zip(structure.families, live.units, strict=True):
        for member in family.members:
            size = structure.tensors[member.tensor].shape[member.axis]
            mask = left.setdefault((member.tensor, member.axis), torch.ones(size, dtype=torch.bool))
            mask[member.index[~live_U].flatten()] = False
    return left
