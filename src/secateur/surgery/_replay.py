"""`replay_`: give a freshly built model the shape another one was cut to."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secateur.errors import SurgeryError
from secateur.structure import named_modules, named_tensors, read_slot
from secateur.surgery._cut import EDIT_ATTRIBUTE, record_
from secateur.surgery._edit import Edit
from secateur.surgery._journal import Journal
from secateur.surgery._operate import operate_
from secateur.surgery._plan import Plan


def replay_(model: nn.Module, edit: Edit) -> None:
    """Remove from a freshly built model what an edit says was removed from its like.

    Values of the tensors that remain are those of the fresh model at the kept positions. If the
    edit does not fit, the model is as it was before the call.

    Args:
        model: A model as it was built, on any device, the meta device included.
        edit: The record of the model that was cut.

    Raises:
        SurgeryError: The edit does not fit the model, or the model was cut before.
    """
    if EDIT_ATTRIBUTE in vars(model):
        raise SurgeryError(
            f"This {type(model).__name__} was cut before, but an edit counts positions of a fresh "
            "one. Build the model again and replay the edit on that."
        )
    tensors = named_tensors(model)
    plan = Plan(
        slices={name: _axes(tensors, name, axes) for name, axes in edit.kept.items()},
        attributes=edit.attributes,
        attentions=edit.attentions,
        stubs=edit.stubs,
    )
    _check_modules(model, edit)
    with Journal() as journal:
        operate_(model, plan, journal)
        record_(model, edit, journal)


def _axes(
    tensors: dict[str, Tensor], name: str, axes: Mapping[int, tuple[int, ...]]
) -> dict[int, Tensor]:
    if name not in tensors:
        raise SurgeryError(_misfit(f"it cuts tensor {name!r}, which the model does not have"))
    shape = tuple(tensors[name].shape)
    found = {}
    for axis, positions in axes.items():
        kept = torch.tensor(positions, dtype=torch.int64)
        if not 0 <= axis < len(shape):
            raise SurgeryError(
                _misfit(f"it cuts axis {axis} of tensor {name!r}, whose shape is {shape}")
            )
        ascending = len(kept) > 0 and bool((kept.diff() > 0).all())
        if not ascending or int(kept[0]) < 0 or int(kept[-1]) >= shape[axis]:
            raise SurgeryError(
                _misfit(
                    f"the positions it keeps on axis {axis} of tensor {name!r}, whose shape is "
                    f"{shape}, are not ascending positions of that axis"
                )
            )
        found[axis] = kept
    return found


def _check_modules(model: nn.Module, edit: Edit) -> None:
    modules = named_modules(model)
    for path, values in edit.attributes.items():
        if path not in modules:
            raise SurgeryError(
                _misfit(f"it changes module {path!r}, which the model does not have")
            )
        for attribute, value in values.items():
            if not _is_size(read_slot(modules[path], attribute), like=value):
                raise SurgeryError(
                    _misfit(f"it sets {attribute!r} of module {path!r}, which is no size of it")
                )
    for path in edit.attentions:
        if not isinstance(modules.get(path), nn.MultiheadAttention):
            raise SurgeryError(
                _misfit(f"it makes {path!r} slim, which is no nn.MultiheadAttention")
            )
    for stub in edit.stubs:
        if stub.module not in modules or not stub.module:
            raise SurgeryError(
                _misfit(f"it replaces module {stub.module!r}, which the model does not have")
            )


def _is_size(old: object, *, like: object) -> bool:
    if isinstance(old, tuple) and isinstance(like, tuple):
        return len(old) == len(like)
    return type(old) is int and type(like) is int


def _misfit(fact: str) -> str:
    return (
        f"The edit does not fit the model: {fact}. Build the same model, at full size, as the one "
        "that was cut."
    )
