"""How exactly a forward computes: models whose weights are double may still round to less inside.

Many language models compute their norms, softmaxes and rotary embeddings in float32, whatever the
type of their weights. Two runs of such a model differ by the rounding of that type.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from secateur.errors import UsageError

MAX_DIFFERENCE = 1e-10
"""Part of the largest output by which rounding may move an output in float64."""
_ROUNDINGS = 64
"""Roundings of a coarser type that may add up in one output; few layers gave up to two."""
_COARSEST = 1e-3
"""A difference that one misplaced unit may make: where rounding makes as much, none is found."""
_MAKERS = frozenset((
    "aten::empty_like", "aten::zeros_like", "aten::ones_like", "aten::full_like",
    "aten::rand_like", "aten::randn_like", "aten::new_empty", "aten::new_zeros", "aten::new_ones",
    "aten::new_full", "aten::new_empty_strided",
))  # fmt: skip
"""Operations that take a tensor's shape and not its numbers."""


class Precision(TorchDispatchMode):
    """Watches for results of a coarser type than what they are computed from.

    Attributes:
        coarsest: The coarsest type that floating-point numbers were rounded to; float64 where none
            were.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.coarsest = torch.float64

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Look at one operation; see `torch.utils._python_dispatch.TorchDispatchMode`."""
        options = kwargs or {}
        out = func(*args, **options)
        if func._schema.name not in _MAKERS:
            finest = min((_step(t) for t in _floating((*args, *options.values()))), default=None)
            for result in _floating((out,)):
                is_rounded = finest is not None and _step(result) > finest
                if is_rounded and _step(result) > torch.finfo(self.coarsest).eps:
                    self.coarsest = result.dtype
        return out


def allowed_difference(coarsest: torch.dtype) -> float:
    """Say how far rounding may move an output, as a part of the largest one.

    Args:
        coarsest: What `Precision` found while the outputs were computed.

    Returns:
        The bound: one for all that computes in float64 throughout, else some roundings.

    Raises:
        UsageError: Rounding to this type hides mistakes.
    """
    if torch.finfo(coarsest).eps <= torch.finfo(torch.float64).eps:
        return MAX_DIFFERENCE
    bound = float(_ROUNDINGS * torch.finfo(coarsest).eps)
    if bound > _COARSEST:
        raise UsageError(
            f"The model rounds to {name_of(coarsest)} in its forward, though its "
            "weights are float64, so a wrong removal cannot be told from rounding. Expected "
            "float32 or float64 throughout. Switch the model's half precision off to verify it."
        )
    return bound


def name_of(dtype: torch.dtype) -> str:
    """Name a type without PyTorch's prefix."""
    return str(dtype).removeprefix("torch.")


def _floating(values: tuple[Any, ...]) -> list[Tensor]:
    """List the floating-point tensors among arguments or results that hold anything."""
    found = []
    for value in values:
        for entry in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(entry, Tensor) and entry.numel() and _is_floating(entry):
                found.append(entry)
    return found


def _is_floating(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _step(tensor: Tensor) -> float:
    """Distance of one to the next number of a tensor's type."""
    return torch.finfo(tensor.dtype).eps
