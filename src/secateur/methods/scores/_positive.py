"""A forward in which everything that is not linear on positive numbers stands in for its like.

SynFlow asks how much weight all paths through a network carry. That is its output for an input of
ones and absolute weights, where every operation in between is linear on positive numbers, as ReLU,
pooling and additions are. The stand-ins:

- norms multiply by their scale, with the statistics they have collected, and shift nothing;
- activations (GELU, SiLU, tanh, clamps, ...) pass positive numbers on as they are;
- what bounds its output passes on shares: a sigmoid its input over the largest one, a softmax its
  input over the sum. The divisor counts as a constant. Else every gate and every attention would
  multiply the flow with itself, which no number format holds for long;
- attention weighs values by such shares of the products of queries and keys.

Norms and attention that a model writes out by hand are not recognised, and the softmax inside
`torch.nn.MultiheadAttention` stays: its weights are positive, too.

Letters: C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from secateur.surgery import grouped_product


class PositiveForward(TorchFunctionMode):
    """Replaces functions of PyTorch by their stand-ins inside a ``with`` block.

    Parameters and inputs are expected to be positive.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Replace one call; see `torch.overrides.TorchFunctionMode`."""
        given = dict(kwargs or {})
        stand_in: Callable[..., Any] | None = _STAND_INS.get(func)
        first = args[0] if args else given.get("input")
        if stand_in is None or not (isinstance(first, Tensor) and first.is_floating_point()):
            return func(*args, **given)
        return stand_in(*args, **given)


def _same(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return input


def _share_of_largest(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return _over(input, input.amax())


def _share_of_sum(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    dim = kwargs.get("dim", args[0] if args else -1)
    return _over(input, input.sum(dim=-1 if dim is None else dim, keepdim=True))


def _over(input: Tensor, divisor: Tensor) -> Tensor:
    """Divide by a constant; where it is 0 so is everything it divides."""
    return input / divisor.detach().clamp(min=torch.finfo(input.dtype).tiny)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    # The signature is that of `torch.nn.functional.batch_norm`.
    scale_C = None if running_var is None else (running_var + eps).rsqrt()
    if weight is not None:
        scale_C = weight if scale_C is None else weight * scale_C
    return _scaled(input, scale_C)


def _instance_norm(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    # Third argument after the two statistics, as in `torch.nn.functional.instance_norm`.
    return _scaled(input, kwargs.get("weight", args[2] if len(args) > 2 else None))


def _group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, *args: Any, **kwargs: Any
) -> Tensor:
    return _scaled(input, weight)


def _layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, *args: Any, **kwargs: Any
) -> Tensor:
    return input if weight is None else input * weight


def _glu(input: Tensor, dim: int = -1) -> Tensor:
    value, gate = input.chunk(2, dim)
    return value * _share_of_largest(gate)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *args: Any,
    enable_gqa: bool = False,
    **kwargs: Any,
) -> Tensor:
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (t.repeat_interleave(repeats, dim=-3) for t in (key, value))
    return _share_of_sum(query @ key.transpose(-2, -1)) @ value


def _scaled(input: Tensor, scale_C: Tensor | None) -> Tensor:
    """Multiply channels, on axis 1 as in every norm over batches, instances or groups."""
    if scale_C is None:
        return input
    return input * scale_C.view(-1, *(1,) * (input.dim() - 2))


_STAND_INS: dict[Callable[..., Any], Callable[..., Tensor]] = {
    F.batch_norm: _batch_norm,
    F.instance_norm: _instance_norm,
    F.group_norm: _group_norm,
    F.layer_norm: _layer_norm,
    F.rms_norm: _layer_norm,
    F.glu: _glu,
    F.scaled_dot_product_attention: _attention,
    torch._grouped_mm: grouped_product,
}
_PASSED_ON = (
    (F, "celu elu gelu hardswish hardtanh hardtanh_ logsigmoid mish relu6 selu silu softplus"),
    (F, "softsign tanh tanhshrink"),
    (torch, "celu celu_ clamp clamp_ selu selu_ tanh tanh_"),
    (Tensor, "clamp clamp_ tanh tanh_"),
)
_BOUNDED = (
    ((F, torch, Tensor), "sigmoid", _share_of_largest),
    ((torch, Tensor), "sigmoid_", _share_of_largest),
    ((F,), "hardsigmoid", _share_of_largest),
    ((F, torch, Tensor), "softmax", _share_of_sum),
)
_STAND_INS |= {getattr(owner, name): _same for owner, names in _PASSED_ON for name in names.split()}
_STAND_INS |= {
    getattr(owner, name): stand_in for owners, name, stand_in in _BOUNDED for owner in owners
}
