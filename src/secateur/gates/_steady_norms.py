"""What a norm multiplies by when its statistics are held: those of the base path.

A path on which something is silenced, normalised by statistics of its own, would hide half of the
damage: shifts of the mean and changes of the scale vanish. With held statistics a norm is affine.

Letters: B batch, C channels, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

_ARGUMENTS: Mapping[Callable[..., Any], tuple[str, ...]] = {
    F.batch_norm: (
        "input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps",
    ),
    F.layer_norm: ("input", "normalized_shape", "weight", "bias", "eps"),
    F.rms_norm: ("input", "normalized_shape", "weight", "eps"),
    F.group_norm: ("input", "num_groups", "weight", "bias", "eps"),
}  # fmt: skip


def is_norm(function: Callable[..., Any]) -> bool:
    """Say whether `held_scale` knows a function."""
    return function in _ARGUMENTS


def held_scale(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Tensor:
    """Return d output / d input of a norm whose statistics are held at those of its input.

    Args:
        function: The norm, one of `torch.nn.functional`.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Returns:
        A factor that broadcasts over the input, float32 or wider.
    """
    values = dict(zip(_ARGUMENTS[function], args, strict=False)) | dict(kwargs)
    x = values["input"]
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    scale = _SCALES[function](x, values)
    weight: Tensor | None = values.get("weight")
    if weight is None:
        return scale
    over_channels = function in (F.batch_norm, F.group_norm)
    shape = [1, -1] + [1] * (x.dim() - 2) if over_channels else list(weight.shape)
    return scale * weight.to(x.dtype).view(shape)


def _batch(x: Tensor, values: Mapping[str, Any]) -> Tensor:
    own = values.get("training") or values.get("running_var") is None
    axes = [axis for axis in range(x.dim()) if axis != 1]
    variance = x.var(dim=axes, correction=0) if own else values["running_var"].to(x.dtype)
    shape = [1, -1] + [1] * (x.dim() - 2)
    scale: Tensor = (variance + values.get("eps", 1e-5)).rsqrt().view(shape)
    return scale


def _layer(x: Tensor, values: Mapping[str, Any]) -> Tensor:
    axes = list(range(-len(values["normalized_shape"]), 0))
    variance = x.var(dim=axes, correction=0, keepdim=True)
    scale: Tensor = (variance + values.get("eps", 1e-5)).rsqrt()
    return scale


def _root_mean_square(x: Tensor, values: Mapping[str, Any]) -> Tensor:
    axes = list(range(-len(values["normalized_shape"]), 0))
    eps = values.get("eps")
    eps = torch.finfo(values["input"].dtype).eps if eps is None else eps
    scale: Tensor = (x.square().mean(dim=axes, keepdim=True) + eps).rsqrt()
    return scale


def _group(x: Tensor, values: Mapping[str, Any]) -> Tensor:
    grouped = x.reshape(len(x), values["num_groups"], -1)
    scale_BG: Tensor = (grouped.var(dim=2, correction=0) + values.get("eps", 1e-5)).rsqrt()
    scale_BC = scale_BG.repeat_interleave(x.shape[1] // values["num_groups"], dim=1)
    scale: Tensor = scale_BC.view(*scale_BC.shape, *[1] * (x.dim() - 2))
    return scale


_SCALES: Mapping[Callable[..., Any], Callable[[Tensor, Mapping[str, Any]], Tensor]] = {
    F.batch_norm: _batch,
    F.layer_norm: _layer,
    F.rms_norm: _root_mean_square,
    F.group_norm: _group,
}
