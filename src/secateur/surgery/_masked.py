"""The reference for a removal: the whole model with the same structures silenced.

Letters: C channels, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from secateur.structure import Live, Structure, named_tensors
from secateur.surgery._live_statistics import LiveStatistics


def silence_(model: nn.Module, structure: Structure, live: Live) -> None:
    """Zero what carries the gone units' activations on, and the ends of the gone layers.

    Args:
        model: A whole copy of the traced model.
        structure: What it is made of.
        live: What is to go on speaking.
    """
    tensors = named_tensors(model)
    with torch.no_grad():
        for family, live_U in zip(structure.families, live.units, strict=True):
            for member in family.members:
                if member.consumes:
                    gone = member.index[~live_U].flatten()
                    tensor = tensors[member.tensor]
                    tensor.index_fill_(member.axis, gone.to(tensor.device), 0.0)
        for number in (~live.layers).nonzero().flatten().tolist():
            for name in structure.layers[number].closing:
                tensors[name].zero_()


class LiveNorms(TorchFunctionMode):
    """Lets norms compute their statistics over live channels only, and means over live units.

    That is the reference for families under a norm: silencing a unit leaves its value in the
    norm's statistics, removing it does not. A norm is recognised by its weight.

    Args:
        model: The whole model, masked.
        structure: What it is made of.
        live: What is left.
    """

    def __init__(self, model: nn.Module, structure: Structure, live: Live) -> None:
        super().__init__()
        tensors = named_tensors(model)
        self._statistics = LiveStatistics(model, structure, live)
        self._gone: dict[int, list[tuple[int, Tensor]]] = {}
        for family, live_U in zip(structure.families, live.units, strict=True):
            if family.inexact is None:
                continue
            for member in family.members:
                tensor = tensors[member.tensor]
                gone = member.index[~live_U].flatten().to(tensor.device)
                self._gone.setdefault(id(tensor), []).append((member.axis, gone))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace one call; see `torch.overrides.TorchFunctionMode`."""
        given = dict(kwargs or {})
        taken = self._statistics.taken(func, args, given)
        if taken is not None:
            return taken
        norm = _NORMS.get(func)
        if norm is not None:
            values = dict(zip(_ARGUMENTS[func], args, strict=False)) | given
            gone = self._gone.get(id(values.get("weight")))
            if gone is not None:
                live = torch.ones_like(values["weight"])
                for axis, positions in gone:
                    live.index_fill_(axis, positions, 0.0)
                return norm(live, **values)
        return func(*args, **given)

    def __enter__(self) -> LiveNorms:
        """Start; see `torch.overrides.TorchFunctionMode`."""
        self._statistics.open()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """Stop; see `torch.overrides.TorchFunctionMode`."""
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._statistics.close()


def _layer_norm(
    live: Tensor,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    axes = tuple(range(-live.dim(), 0))
    mean = (input * live).sum(axes, keepdim=True) / live.sum()
    variance = ((input - mean).square() * live).sum(axes, keepdim=True) / live.sum()
    result = (input - mean) / (variance + eps).sqrt() * weight
    return result if bias is None else result + bias


def _rms_norm(
    live: Tensor,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor,
    eps: float | None = None,
) -> Tensor:
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    axes = tuple(range(-live.dim(), 0))
    mean = (input.square() * live).sum(axes, keepdim=True) / live.sum()
    return input / (mean + eps).sqrt() * weight


def _group_norm(
    live_C: Tensor,
    input: Tensor,
    num_groups: int,
    weight: Tensor,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    grouped = input.reshape(len(input), num_groups, len(live_C) // num_groups, -1)
    live = live_C.reshape(1, num_groups, -1, 1).expand_as(grouped)
    count = live.sum((2, 3), keepdim=True).clamp_min(1.0)
    mean = (grouped * live).sum((2, 3), keepdim=True) / count
    variance = ((grouped - mean).square() * live).sum((2, 3), keepdim=True) / count
    result = ((grouped - mean) / (variance + eps).sqrt()).reshape(input.shape)
    channels = (-1,) + (1,) * (input.dim() - 2)
    result = result * weight.view(channels)
    return result if bias is None else result + bias.view(channels)


_NORMS: Mapping[Callable[..., Any], Callable[..., Tensor]] = {
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
}
_ARGUMENTS: Mapping[Callable[..., Any], tuple[str, ...]] = {
    F.layer_norm: ("input", "normalized_shape", "weight", "bias", "eps"),
    F.rms_norm: ("input", "normalized_shape", "weight", "eps"),
    F.group_norm: ("input", "num_groups", "weight", "bias", "eps"),
}
