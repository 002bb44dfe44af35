"""Names of tensors that are tied, and of the modules that own them."""

from __future__ import annotations

from torch import Tensor


def names_of(tensors: dict[str, Tensor]) -> dict[int, list[str]]:
    """Group the names that mean the same tensor.

    Args:
        tensors: What `named_tensors` returned.

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
