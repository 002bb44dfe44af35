"""Optimizers that go on: state tensors lose the positions their parameter loses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.utils._pytree import tree_map_only

from secateur.errors import SurgeryError
from secateur.surgery._journal import Journal
from secateur.surgery._shrink import Axes, selected


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cut:
    """What happens to one parameter.

    Attributes:
        name: Its name, for errors.
        shape: Its shape before.
        axes: The positions that stay.
    """

    name: str
    shape: torch.Size
    axes: Axes


def check_optimizers(optimizers: Iterable[Optimizer]) -> None:
    """Refuse optimizers whose state is not organised by parameter.

    Args:
        optimizers: The optimizers.

    Raises:
        SurgeryError: One is an `torch.optim.LBFGS`.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, LBFGS):
            raise SurgeryError(
                "LBFGS keeps one flat vector over all parameters, which cannot lose positions. "
                "Expected an optimizer with state for each parameter, such as SGD or AdamW. "
                "Use one of these, or make a new LBFGS after the last removal."
            )


def follow_(optimizer: Optimizer, cuts: Mapping[nn.Parameter, Cut], journal: Journal) -> None:
    """Cut an optimizer's state as its parameters were cut.

    A state tensor follows if it has the parameter's shape, or that shape with axes of size 1 or
    with one axis missing (running statistics over rows and columns). Scalars stay.

    Args:
        optimizer: The optimizer.
        cuts: What happened to its parameters.
        journal: Where the way back is noted.

    Raises:
        SurgeryError: A state tensor has a shape that says nothing about the parameter's.
    """
    for parameter, cut in cuts.items():
        state = optimizer.state.get(parameter)
        if not state:
            continue
        journal.note(partial(state.update, dict(state)))
        for key, value in state.items():
            state[key] = tree_map_only(Tensor, partial(_followed, cut, str(key)), value)


def forget_(optimizer: Optimizer, gone: Iterable[nn.Parameter], journal: Journal) -> None:
    """Take parameters out of an optimizer; a group that lost all of its parameters stays, empty.

    Args:
        optimizer: The optimizer.
        gone: Parameters that the model no longer has.
        journal: Where the way back is noted.
    """
    ids = {id(parameter) for parameter in gone}
    for group in optimizer.param_groups:
        listed = group["params"]
        if any(id(parameter) in ids for parameter in listed):
            journal.note(partial(listed.__setitem__, slice(None), list(listed)))
            listed[:] = [parameter for parameter in listed if id(parameter) not in ids]
    for parameter in gone:
        if parameter in optimizer.state:
            journal.note(
                partial(optimizer.state.__setitem__, parameter, optimizer.state[parameter])
            )
            del optimizer.state[parameter]


def _followed(cut: Cut, key: str, value: Tensor) -> Tensor:
    if value.numel() == 1 and value.shape != cut.shape:
        return value
    if value.dim() == len(cut.shape):
        follows = all(n in {1, full} for n, full in zip(value.shape, cut.shape, strict=True))
        axes = {axis: kept for axis, kept in cut.axes.items() if value.shape[axis] != 1}
        if follows:
            return selected(value, axes) if axes else value
    missing = _missing_axis(cut, key, value)
    if missing is None:
        raise SurgeryError(
            f"The optimizer keeps {key!r} of shape {tuple(value.shape)} for parameter {cut.name} "
            f"of shape {tuple(cut.shape)}, and nothing says which positions belong together. "
            "Expected the parameter's shape, with axes left out or of size 1. Use an optimizer of "
            "torch.optim, or make a new one after the last removal."
        )
    axes = {axis - (axis > missing): kept for axis, kept in cut.axes.items() if axis != missing}
    return selected(value, axes) if axes else value


def _missing_axis(cut: Cut, key: str, value: Tensor) -> int | None:
    """Find the axis of the parameter that a statistic was summed over."""
    dims = len(cut.shape)
    candidates = [
        axis
        for axis in range(dims)
        if value.shape == cut.shape[:axis] + cut.shape[axis + 1 :] and value.dim() == dims - 1
    ]
    if len(candidates) > 1:
        # Shapes cannot tell the axes of a square apart. Adafactor implementations call a statistic
        # "row" if the last axis was averaged away, and "col" if the one before was.
        named = {"row": dims - 1, "col": dims - 2}
        candidates = [axis for word, axis in named.items() if word in key and axis in candidates]
    return candidates[0] if len(candidates) == 1 else None
