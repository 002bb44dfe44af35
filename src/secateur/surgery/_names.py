"""Every parameter and buffer of a model under all of its names."""

from __future__ import annotations

from torch import Tensor, nn


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """List parameters and buffers, ties under each of their names.

    Args:
        model: Any module.

    Returns:
        Qualified name to tensor, parameters first.
    """
    named: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    named.update(model.named_buffers(remove_duplicate=False))
    return named


def names_of(tensors: dict[str, Tensor]) -> dict[int, list[str]]:
    """Group the names that mean the same tensor.

    Args:
        tensors: What `tensors_of` returned.

    Returns:
        ``id`` of each tensor to its names, in the order of ``tensors``.
    """
    names: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    return names


def owner_of(name: str) -> tuple[str, str]:
    """Split a qualified name.

    Args:
        name: Such as ``layer1.0.conv1.weight``.

    Returns:
        The path before the last dot (``""`` is the model) and the name after it.
    """
    path, _, leaf = name.rpartition(".")
    return path, leaf
