"""Statistics that a forward works out itself, and choices it makes, over live units only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from secateur.structure import Live, Structure, named_modules, watched_calls

_Call = tuple[str, str, int]


class LiveStatistics:
    """Finds the statistics and choices over units among a model's calls, and makes them anew.

    They are found by the name of the function, the module that calls it, and how often it has
    called it before: the masked model runs the code that was traced.

    Args:
        model: The whole model, masked.
        structure: What it is made of.
        live: What is left.
    """

    def __init__(self, model: nn.Module, structure: Structure, live: Live) -> None:
        evidence = structure.evidence
        self._model = model
        self._paths: dict[int, str] = {}
        for path, module in named_modules(model).items():
            self._paths.setdefault(id(module), path)
        self._masks: dict[bool, dict[_Call, tuple[int, Tensor]]] = {}
        if evidence is not None and any(evidence.statistics):
            gone = torch.zeros(len(evidence.component), dtype=torch.bool)
            component = torch.from_numpy(evidence.component)
            for family, live_U in zip(structure.families, live.units, strict=True):
                for member in family.members:
                    ids = torch.from_numpy(evidence.ranges[member.tensor, member.axis])
                    gone[component[ids[member.index[~live_U].flatten()]]] = True
            for training, entries in zip(evidence.modes, evidence.statistics, strict=True):
                own = self._masks[training] = {}
                for entry in entries:
                    mask = ~gone[component[torch.from_numpy(entry.ids.copy())]]
                    own[entry.module, entry.function, entry.ordinal] = entry.axis, mask
        self._stack: list[str] = []
        self._counts: dict[tuple[str, str], int] = {}
        self._watch = ExitStack()

    def open(self) -> None:
        """Follow which module is running."""
        if self._masks:

            def enter(module: nn.Module, inputs: Any) -> None:
                self._stack.append(self._paths.get(id(module), "?"))

            def leave(module: nn.Module, inputs: Any, options: Any, output: Any) -> None:
                self._stack.pop()

            self._watch.enter_context(watched_calls(leave, enter))

    def close(self) -> None:
        """Stop following."""
        self._watch.close()

    def taken(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        """Take a statistic over what is live.

        Args:
            func: Function that the model calls.
            args: Its positional arguments.
            kwargs: Its keyword arguments.

        Returns:
            The result, or None where this call is no statistic over units that are gone.
        """
        name = getattr(func, "__name__", "")
        if name not in _STATISTICS.keys() | _CHOICES | _LENGTHS or not self._masks:
            return None
        place = self._stack[-1] if self._stack else "", name
        ordinal = self._counts.get(place, 0)
        self._counts[place] = ordinal + 1
        masks = self._masks.get(self._model.training, self._masks[False])
        axis, mask = masks.get((*place, ordinal), (0, None))
        if mask is None or bool(mask.all()):
            return None
        if name in _CHOICES:
            return func(_without_gone(name, mask, axis, args, kwargs), *args[1:], **kwargs)
        if name in _LENGTHS:
            return func(_silenced(mask, axis, args[0]), *args[1:], **kwargs)
        return _STATISTICS[name](mask, axis, *args, **kwargs)


def _weights(mask: Tensor, axis: int, x: Tensor) -> Tensor:
    shape = [1] * x.dim()
    shape[axis] = -1
    return mask.to(x.device, x.dtype).view(shape)


def _silenced(mask: Tensor, axis: int, x: Tensor) -> Tensor:
    """Let gone units add nothing to the length of a vector."""
    return x.where(_weights(mask, axis, x) > 0, 0.0)


def _without_gone(
    name: str, mask: Tensor, axis: int, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Tensor:
    """Let gone units weigh nothing, and be the last to be chosen."""
    largest = name not in {"argmin", "min"}
    if name == "topk":
        largest = kwargs.get("largest", args[3] if len(args) > 3 else True)
    x: Tensor = args[0]
    return x.where(_weights(mask, axis, x) > 0, -torch.inf if largest else torch.inf)


def _mean(
    mask: Tensor,
    axis: int,
    input: Tensor,
    dim: Any = None,
    keepdim: bool = False,
    **kwargs: Any,
) -> Tensor:
    weights = _weights(mask, axis, input)
    dims = list(range(input.dim())) if dim is None else dim
    count = weights.expand_as(input).sum(dims, keepdim=keepdim)
    # A gone unit may hold anything, infinities too.
    return input.where(weights > 0, 0.0).sum(dims, keepdim=keepdim) / count


def _var(
    mask: Tensor,
    axis: int,
    input: Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    weights = _weights(mask, axis, input)
    dims = list(range(input.dim())) if dim is None else dim
    less = float(unbiased) if correction is None else correction
    centred = (input - _mean(mask, axis, input, dims, keepdim=True)).where(weights > 0, 0.0)
    count = weights.expand_as(input).sum(dims, keepdim=keepdim)
    return centred.square().sum(dims, keepdim=keepdim) / (count - less)


def _std(*args: Any, **kwargs: Any) -> Tensor:
    return _var(*args, **kwargs).sqrt()


def _var_mean(
    mask: Tensor, axis: int, input: Tensor, dim: Any = None, *args: Any, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    keepdim = kwargs.get("keepdim", args[1] if len(args) > 1 else False)
    variance = _var(mask, axis, input, dim, *args, **kwargs)
    return variance, _mean(mask, axis, input, dim, keepdim)


def _std_mean(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    variance, mean = _var_mean(*args, **kwargs)
    return variance.sqrt(), mean


def _layer_norm(
    mask: Tensor,
    axis: int,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    dims = list(range(-len(normalized_shape), 0))
    mean = _mean(mask, axis, input, dims, keepdim=True)
    variance = _var(mask, axis, input, dims, unbiased=False, keepdim=True)
    return _scaled((input - mean) / (variance + eps).sqrt(), weight, bias)


def _scaled(normalised: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = normalised if weight is None else normalised * weight
    return scaled if bias is None else scaled + bias


def _rms_norm(
    mask: Tensor,
    axis: int,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    dims = list(range(-len(normalized_shape), 0))
    mean = _mean(mask, axis, input.square(), dims, keepdim=True)
    return _scaled(input / (mean + eps).sqrt(), weight, None)


def _group_norm(
    mask: Tensor,
    axis: int,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    channels = input.unflatten(1, (num_groups, -1)).flatten(2)
    each = channels.shape[2] * num_groups // len(mask)
    live = mask.view(num_groups, -1).repeat_interleave(each, dim=1).to(input.device)
    live = live.expand_as(channels)
    count = live.sum(2, keepdim=True).clamp_min(1)
    mean = channels.where(live, 0.0).sum(2, keepdim=True) / count
    variance = (channels - mean).where(live, 0.0).square().sum(2, keepdim=True) / count
    result = ((channels - mean) / (variance + eps).sqrt()).view(input.shape)
    shape = (-1,) + (1,) * (input.dim() - 2)
    own = (None if vector is None else vector.view(shape) for vector in (weight, bias))
    return _scaled(result, *own)


_CHOICES = frozenset(("softmax", "topk", "argmax", "argmin", "max", "min"))
_LENGTHS = frozenset(("normalize", "norm", "linalg_vector_norm"))
_STATISTICS: Mapping[str, Callable[..., Any]] = {
    "mean": _mean,
    "var": _var,
    "std": _std,
    "var_mean": _var_mean,
    "std_mean": _std_mean,
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
}
