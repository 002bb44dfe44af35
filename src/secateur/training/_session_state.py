"""What a session saves, and the checks before a saved one is believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from secateur.errors import UsageError
from secateur.methods import State
from secateur.structure import Decision, Live, Structure

VERSION = 1

SessionState = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SavedSession:
    """Everything a resumed run needs beside the states of model and optimizer.

    Attributes:
        step: Optimizer steps taken.
        seconds: Seconds since the run started.
        spent_steps: MACs spent on training, in steps of the starting network.
        num_events: Events emitted so far: what a file holds beyond them was written later.
        can_measure: Whether losses could be measured on the side so far.
        live: What is left of the model.
        generator: State of the generator of the gates.
        search: State of the method.
    """

    step: int
    seconds: float
    spent_steps: float
    num_events: int
    can_measure: bool
    live: Live
    generator: Tensor
    search: State

    def to_dict(self) -> SessionState:
        """Return tensors, numbers, and lists and dictionaries of these."""
        return {
            "version": VERSION,
            "step": self.step,
            "seconds": self.seconds,
            "spent_steps": self.spent_steps,
            "num_events": self.num_events,
            "can_measure": int(self.can_measure),
            "units": [mask.clone() for mask in self.live.units],
            "layers": self.live.layers.clone(),
            "generator": self.generator,
            "search": dict(self.search),
        }

    def gone(self) -> Decision:
        """Return what has to be removed from the starting network."""
        return Decision(
            units={
                family: torch.nonzero(~mask).flatten()
                for family, mask in enumerate(self.live.units)
                if not bool(mask.all())
            },
            layers=tuple(torch.nonzero(~self.live.layers).flatten().tolist()),
        )


def read_saved(state: SessionState, structure: Structure) -> SavedSession:
    """Check a saved state against the structure it should belong to.

    Args:
        state: What `Session.state_dict` returned.
        structure: Of the freshly built model.

    Returns:
        The saved session.

    Raises:
        UsageError: It is of another version or structure, or an entry is missing or of the wrong
            type.
    """
    version = state.get("version")
    if version != VERSION:
        raise UsageError(
            f"The session state has version {version!r}; this secateur reads version {VERSION}. "
            "Resume with the secateur that wrote it, or start the run again."
        )
    units, search = state.get("units"), state.get("search")
    generator = state.get("generator")
    if not isinstance(units, list | tuple) or not isinstance(search, dict):
        _refuse("units and search")
    if not isinstance(generator, Tensor):
        _refuse("generator")
    live = Live(units=tuple(_mask(mask) for mask in units), layers=_mask(state.get("layers")))
    sizes = [len(mask) for mask in live.units]
    wanted = [family.num_units for family in structure.families]
    if sizes != wanted or len(live.layers) != structure.num_layers:
        raise UsageError(
            f"The session state describes families of {sizes} units and {len(live.layers)} "
            f"layers; the model has families of {wanted} units and {structure.num_layers} layers. "
            "Build the model as it was when the run began, attach, and then load."
        )
    return SavedSession(
        step=int(_number(state, "step")),
        seconds=_number(state, "seconds"),
        spent_steps=_number(state, "spent_steps"),
        num_events=int(_number(state, "num_events")),
        can_measure=bool(_number(state, "can_measure")),
        live=live,
        generator=generator.cpu(),
        search=search,
    )


def _number(state: SessionState, name: str) -> float:
    value = state.get(name)
    if not isinstance(value, int | float):
        _refuse(name)
    return value


def _mask(value: object) -> Tensor:
    if not isinstance(value, Tensor) or value.ndim != 1:
        _refuse("units and layers")
    return value.detach().to("cpu", torch.bool).clone()


def _refuse(what: str) -> NoReturn:
    raise UsageError(
        f"The session state lacks a usable entry for {what}. Pass what `Session.state_dict` "
        "returned, unchanged."
    )
