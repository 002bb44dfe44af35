"""The events a session emits: plain dictionaries that JSON can hold."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor, nn

from secateur._version import __version__
from secateur.structure import Decision, Live, Structure

Event = dict[str, object]


def start_event(
    model: nn.Module, structure: Structure, method: object, *, seed: int, total_steps: int
) -> Event:
    """Describe a run as it begins.

    Args:
        model: The model.
        structure: What it is made of.
        method: The method with its settings.
        seed: Seed of the gates.
        total_steps: Optimizer steps of the whole training.

    Returns:
        The event ``start``, without its step and seconds.
    """
    return {
        "event": "start",
        "model": type(model).__name__,
        "data": "",
        "seed": seed,
        "method": {"name": type(method).__name__, "settings": _settings(method)},
        "total_steps": total_steps,
        "macs": structure.cost.macs.value(),
        "params": structure.cost.params.value(),
        "families": [
            {"name": family.name, "kind": family.kind, "units": family.num_units}
            for family in structure.families
        ],
        "layers": [layer.name for layer in structure.layers],
        "machine": {"system": platform.system(), "processor": platform.machine()},
        "versions": {
            "secateur": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }


def remove_event(
    structure: Structure, live: Live, decision: Decision, worth: Mapping[str, float]
) -> Event:
    """Describe a removal.

    Args:
        structure: What the model was made of.
        live: What is left after the removal.
        decision: What went.
        worth: Relative worth of what went, by name.

    Returns:
        The event ``remove``, without its step and seconds.
    """
    return {
        "event": "remove",
        "units": {
            structure.families[family].name: _numbers(gone)
            for family, gone in decision.units.items()
            if len(gone)
        },
        "layers": [structure.layers[layer].name for layer in decision.layers],
        "worth": dict(worth),
        **cost_entries(structure, live),
    }


def settle_event(structure: Structure, live: Live) -> Event:
    """Describe the network that was found.

    Args:
        structure: What the model was made of.
        live: What is left.

    Returns:
        The event ``settle``, without its step and seconds.
    """
    return {
        "event": "settle",
        **cost_entries(structure, live),
        "kept_units": {
            family.name: int(mask.sum())
            for family, mask in zip(structure.families, live.units, strict=True)
        },
        "kept_layers": [
            layer.name
            for layer, alive in zip(structure.layers, live.layers.tolist(), strict=True)
            if alive
        ],
    }


def cost_entries(structure: Structure, live: Live) -> Event:
    """Return what a network costs.

    Args:
        structure: What the model was made of.
        live: What is left.

    Returns:
        ``macs`` and ``params``.
    """
    return {
        "macs": structure.cost.macs.value(live.counts, live.layers),
        "params": structure.cost.params.value(live.counts, live.layers),
    }


def _numbers(gone: Tensor) -> list[int]:
    return [int(number) for number in gone.tolist()]


def _settings(method: object) -> Event:
    if not is_dataclass(method):
        return {}
    settings = {field.name: getattr(method, field.name) for field in fields(method)}
    return {name: _plain(value) for name, value in settings.items()}


def _plain(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return str(value)
