"""What a removal does to a model, worked out before anything is touched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.errors import SurgeryError
from secateur.structure import (
    AttributeValue,
    Live,
    Member,
    Resize,
    Structure,
    Stub,
    named_modules,
    named_tensors,
    own_tensors,
    resized_attributes,
)
from secateur.surgery._names import names_of, owner_of
from secateur.surgery._shrink import Axes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """Changes by name, so that they fit every copy of the model.

    Attributes:
        slices: Tensor name to axis to the current positions that stay.
        attributes: Module path to attribute name to new value.
        attentions: Attention modules that have to become slim.
        stubs: Modules that are replaced, in order.
    """

    slices: Mapping[str, Axes] = field(default_factory=dict)
    attributes: Mapping[str, Mapping[str, AttributeValue]] = field(default_factory=dict)
    attentions: tuple[str, ...] = ()
    stubs: tuple[Stub, ...] = ()


def plan_cut(model: nn.Module, structure: Structure, live: Live, after: Live) -> Plan:
    """Work out how a model gets from one state to a smaller one.

    Args:
        model: The model, in state ``live``; it is not changed.
        structure: What it was made of when it was traced.
        live: What is left now.
        after: What is to be left.

    Returns:
        The plan.

    Raises:
        SurgeryError: The model is not in the state ``live``.
    """
    tensors, modules = named_tensors(model), named_modules(model)
    gone = [layer for i, layer in enumerate(structure.layers) if not live.layers[i]]
    emptied = tuple(f"{stub.module}." for layer in gone for stub in layer.stubs)
    slices: dict[str, dict[int, Tensor]] = {}
    traced: dict[str, tuple[int, ...]] = {}
    gone_before, gone_after = _gone(live), _gone(after)
    kept: dict[tuple[Any, ...], tuple[int, Tensor]] = {}
    for (canonical, axis), members in _changed_axes(structure, live, after):
        info = structure.tensors[canonical]
        name = next((alias for alias in info.aliases if alias in tensors), None)
        if name is None and canonical.startswith(emptied):
            continue
        # Axes that carry the same units share their index tensors, and with them the outcome.
        key = info.shape[axis], *((number, id(member.index)) for number, member in members)
        if key not in kept:
            before = _mask(info.shape[axis], members, gone_before)
            later = _mask(info.shape[axis], members, gone_after)
            kept[key] = int(before.sum()), torch.from_numpy(np.flatnonzero(later[before]))
        expected, positions = kept[key]
        size = None if name is None else tensors[name].shape[axis]
        if name is None or size != expected:
            raise SurgeryError(_wrong_state(canonical, axis, size, expected))
        slices.setdefault(name, {})[axis] = positions
        traced[name] = info.shape
    stubs = tuple(_stubs(modules, structure, live, after))
    attributes, attentions = _resized(modules, tensors, slices, traced)
    for path, values in _stored(modules, structure, live, after):
        attributes.setdefault(path, {}).update(values)
    return Plan(slices=slices, attributes=attributes, attentions=attentions, stubs=stubs)


def _changed_axes(
    structure: Structure, live: Live, after: Live
) -> Iterator[tuple[tuple[str, int], list[tuple[int, Member]]]]:
    """Yield every axis that loses positions, with all members on it."""
    members: dict[tuple[str, int], list[tuple[int, Member]]] = {}
    changed: dict[tuple[str, int], None] = {}
    for number, family in enumerate(structure.families):
        shrinks = not torch.equal(live.units[number], after.units[number])
        for member in family.members:
            key = member.tensor, member.axis
            members.setdefault(key, []).append((number, member))
            if shrinks:
                changed.setdefault(key)
    for key in changed:
        yield key, members[key]


def _gone(live: Live) -> list[NDArray[np.bool_] | None]:
    """Mark the gone units of every family; None where there are none."""
    masks = [(~own).numpy() for own in live.units]
    return [mask if mask.any() else None for mask in masks]


def _mask(
    size: int, members: Iterable[tuple[int, Member]], gone: list[NDArray[np.bool_] | None]
) -> NDArray[np.bool_]:
    """Mark the original positions along an axis that are left."""
    mask = np.ones(size, dtype=bool)
    for number, member in members:
        own = gone[number]
        if own is not None:
            mask[member.index.numpy()[own]] = False
    return mask


def _stubs(
    modules: Mapping[str, nn.Module], structure: Structure, live: Live, after: Live
) -> Iterator[Stub]:
    """Yield what replaces the layers that go; a module inside a replaced one needs nothing."""
    gone = [
        s.module
        for i, layer in enumerate(structure.layers)
        if not live.layers[i]
        for s in layer.stubs
    ]
    for number in (live.layers & ~after.layers).nonzero().flatten().tolist():
        layer = structure.layers[number]
        for stub in layer.stubs:
            if stub.module not in modules and not _below(stub.module, gone):
                raise SurgeryError(
                    f"Layer {layer.name!r} cannot go: the model has no module {stub.module!r}, "
                    "which it had when it was traced. Pass the model the structure was traced "
                    "from, and the `live` that belongs to it."
                )
            if not _below(stub.module, gone):
                gone.append(stub.module)
                yield stub


def _below(path: str, others: Iterable[str]) -> bool:
    return any(path.startswith(f"{other}.") for other in others)


def _resized(
    modules: Mapping[str, nn.Module],
    tensors: dict[str, Tensor],
    slices: Mapping[str, Axes],
    traced: Mapping[str, tuple[int, ...]],
) -> tuple[dict[str, dict[str, AttributeValue]], tuple[str, ...]]:
    """Find the modules whose stored sizes change, and the attentions that change at all."""
    names = names_of(tensors)
    new: dict[int, tuple[int, ...]] = {}
    old: dict[int, tuple[int, ...]] = {}
    paths: dict[str, None] = {}
    for name, axes in slices.items():
        tensor = tensors[name]
        shape = list(tensor.shape)
        for axis, kept in axes.items():
            shape[axis] = len(kept)
        new[id(tensor)], old[id(tensor)] = tuple(shape), traced[name]
        for alias in names[id(tensor)]:
            path = owner_of(alias)[0]
            # A parametrisation is a module of its own; the sizes are kept by the one it is for.
            around = f".{path}".rpartition(".parametrizations.")[0].removeprefix(".")
            paths.update(dict.fromkeys((path, around) if "parametrizations" in path else (path,)))
    attributes, attentions = {}, []
    for path in paths:
        module = modules[path]
        own = own_tensors(vars(module))
        now = {n: tuple(t.shape) for n, t in own.items()}
        found = resized_attributes(
            Resize(
                module=module,
                traced={n: old.get(id(t), now[n]) for n, t in own.items()},
                old=now,
                new={n: new.get(id(t), now[n]) for n, t in own.items()},
            )
        )
        if found:
            attributes[path] = found
        for candidate in (path, owner_of(path)[0]):
            if isinstance(modules[candidate], nn.MultiheadAttention):
                attentions.append(candidate)
    return attributes, tuple(dict.fromkeys(attentions))


def _stored(
    modules: Mapping[str, nn.Module], structure: Structure, live: Live, after: Live
) -> Iterator[tuple[str, dict[str, AttributeValue]]]:
    """Yield the numbers in modules that count units, where they change."""
    before, later = live.counts.tolist(), after.counts.tolist()
    for number in structure.stored:
        value = number.at(later)
        if number.module in modules and value != number.at(before):
            yield number.module, {number.slot: value}


def _wrong_state(name: str, axis: int, size: int | None, expected: int) -> str:
    found = "is not in the model" if size is None else f"has {size} positions on axis {axis}"
    return (
        f"Tensor {name} {found}, expected {expected} by what `live` says is left. Pass the model "
        "the structure was traced from, and the `live` that the last removal returned."
    )
