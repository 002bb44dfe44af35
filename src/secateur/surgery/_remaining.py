"""Whether a decision can be carried out, and what would be left."""

from __future__ import annotations

import torch

from secateur.errors import SurgeryError
from secateur.structure import Decision, Family, Live, Structure


def remaining(structure: Structure, live: Live, decision: Decision) -> Live:
    """Return what a decision leaves.

    Args:
        structure: What the model was made of when it was traced.
        live: What is left of it now.
        decision: What is to go.

    Returns:
        What is left afterwards.

    Raises:
        SurgeryError: The decision names something that does not exist or is gone, or takes more
            units of a family than may go.
    """
    units = {}
    for number, gone in decision.units.items():
        if not 0 <= number < len(structure.families):
            raise SurgeryError(
                f"The decision removes units of family {number}, but the structure has "
                f"{len(structure.families)} families. Use indices of structure.families."
            )
        units[number] = torch.as_tensor(gone, dtype=torch.int64, device="cpu")
        _check_units(structure.families[number], live.units[number], units[number])
    for number in decision.layers:
        _check_layer(structure, live, number)
    return live.without(Decision(units=units, layers=decision.layers))


def _check_units(family: Family, live_U: torch.Tensor, gone: torch.Tensor) -> None:
    outside = gone[(gone < 0) | (gone >= family.num_units)].tolist()
    if outside:
        raise SurgeryError(
            f"The decision removes units {outside} of family {family.name!r}, which was traced "
            f"with units 0 to {family.num_units - 1}. Use unit numbers of the traced model."
        )
    dead = gone[~live_U[gone]].tolist()
    if dead:
        raise SurgeryError(
            f"The decision removes units {dead} of family {family.name!r}, which are gone "
            "already. Decide about what `live` says is left."
        )
    left_U = live_U.clone()
    left_U[gone] = False
    left = int(left_U.sum())
    if len(gone) and left < family.fewest:
        raise SurgeryError(
            f"The decision removes {len(gone)} of the {int(live_U.sum())} units that are left of "
            f"family {family.name!r}, but {family.fewest} must stay for the model to run. "
            f"Leave out {family.fewest - left}, or remove the layer that the family is in."
        )


def _check_layer(structure: Structure, live: Live, number: int) -> None:
    if not 0 <= number < len(structure.layers):
        raise SurgeryError(
            f"The decision removes layer {number}, but the structure has "
            f"{len(structure.layers)} layers. Use indices of structure.layers."
        )
    if not bool(live.layers[number]):
        raise SurgeryError(
            f"The decision removes layer {structure.layers[number].name!r}, which is gone already. "
            "Decide about what `live` says is left."
        )
