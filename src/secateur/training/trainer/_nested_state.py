"""State dictionaries taken apart into named tensors and plain JSON, and put together again.

Everything comes back as it was: ints as keys, tuples, tensors with their dtype and layout, and
numbers that are not finite.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from secateur.errors import StorageError

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def flatten(state: object) -> tuple[Json, dict[str, Tensor]]:
    """Take a nested state apart.

    Args:
        state: Dictionaries, lists and tuples of tensors, numbers, texts and None.

    Returns:
        The state in JSON, with numbers in place of tensors, and the tensors by these numbers, on
        the CPU and contiguous.

    Raises:
        TypeError: The state holds something else.
    """
    tensors: dict[str, Tensor] = {}
    return _flatten(state, tensors), tensors


def unflatten(tree: Json, tensors: Mapping[str, Tensor]) -> Any:
    """Put a nested state together.

    Args:
        tree: What `flatten` returned, perhaps by way of a file.
        tensors: The same.

    Returns:
        The state; its tensors are copies on the CPU.

    Raises:
        StorageError: The tree is damaged or names a tensor that is not there.
    """
    try:
        return _unflatten(tree, tensors)
    except (
        LookupError,
        StopIteration,
        TypeError,
        ValueError,
        RuntimeError,
        RecursionError,
    ) as error:
        raise StorageError(
            f"A saved state is damaged ({type(error).__name__}: {error}). "
            "Restore the checkpoint from a copy, or start the run again."
        ) from error


def _flatten(node: object, tensors: dict[str, Tensor]) -> Json:
    if node is None or isinstance(node, (bool, int, str)):
        return node
    if isinstance(node, float):
        return node if math.isfinite(node) else {"float": repr(node)}
    if isinstance(node, Tensor):
        key = str(len(tensors))
        tensors[key] = node.detach().to("cpu", copy=True).contiguous()
        order: Json = list(_axis_order(node))
        return {"tensor": key, "order": order}
    if isinstance(node, (list, tuple)):
        return {type(node).__name__: [_flatten(item, tensors) for item in node]}
    if isinstance(node, Mapping):
        return {"dict": [[_flatten(k, tensors), _flatten(v, tensors)] for k, v in node.items()]}
    raise TypeError(
        f"A state holds a {type(node).__name__}, but a checkpoint can hold tensors, numbers, "
        "texts, lists, tuples and dictionaries only. Keep it as one of these."
    )


def _unflatten(node: Json, tensors: Mapping[str, Tensor]) -> Any:
    if not isinstance(node, dict):
        if isinstance(node, list):
            raise ValueError("a bare list")
        return node
    kind = next(iter(node))
    content: Any = node[kind]
    if kind == "float":
        return float(content)
    if kind == "tensor":
        order: Any = node["order"]
        return _laid_out(tensors[content], order)
    if kind == "dict":
        return {_unflatten(k, tensors): _unflatten(v, tensors) for k, v in content}
    items = [_unflatten(item, tensors) for item in content]
    return {"list": list, "tuple": tuple}[kind](items)


def _axis_order(tensor: Tensor) -> tuple[int, ...]:
    """Return the axes of a tensor as they lie in memory, the slowest first."""
    strides, shape = tensor.stride(), tensor.shape
    # An axis of size 1 may have the stride of another axis; then it is the faster one.
    return tuple(sorted(range(tensor.ndim), key=lambda axis: (-strides[axis], -shape[axis])))


def _laid_out(stored: Tensor, order: list[int]) -> Tensor:
    """Return a copy with its axes in a given order in memory.

    Kernels choose their order of summation by it: channels-last weights give other bits.
    """
    slowest_first = stored.permute(order).clone(memory_format=torch.contiguous_format)
    return slowest_first.permute([order.index(axis) for axis in range(len(order))])
