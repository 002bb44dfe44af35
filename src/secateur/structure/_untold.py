"""Sizes and limits of PyTorch's own layers that neither their tensors nor their operations tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from secateur.nn import SlimMultiheadAttention
from secateur.structure._sizes import own_tensors
from secateur.structure._stored import ids_along
from secateur.structure._structure import Reason
from secateur.structure._tape import Tape
from secateur.structure._use import Use
from secateur.structure.rules import info_of

_UNTOLD = (
    nn.Transformer, nn.LayerNorm, nn.RMSNorm, _InstanceNorm, nn.GroupNorm, nn.MultiheadAttention,
)  # fmt: skip
"""Layers of which something has to be recorded."""


def note_untold(tape: Tape, path: str, module: nn.Module, inputs: Sequence[Any]) -> None:
    """Record what is to be known of a layer before it runs.

    Args:
        tape: Where it is recorded.
        path: Path of the layer.
        module: The layer.
        inputs: Its positional arguments.
    """
    if not isinstance(module, _UNTOLD):
        return
    x = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
    if x is not None:
        for slot, axis in _sizes_without_tensors(module, x):
            ids = ids_along(x, axis % x.ndim, None)
            tape.uses.append(Use((path, slot), ids, "", 0))
    if isinstance(module, nn.MultiheadAttention) and not SlimMultiheadAttention.can_adopt(module):
        kind = type(module).__name__
        reason = Reason(
            message=f"belongs to {kind}, which is derived from nn.MultiheadAttention and may "
            "compute something else without some heads",
            module=path,
        )
        labels = [y for p in module.parameters() for y in info_of(p).labels]
        tape.freezes += [(label.ids.ravel(), reason) for label in labels]


def _sizes_without_tensors(module: nn.Module, x: Tensor) -> Iterator[tuple[str, int]]:
    """Yield slots that hold the size of an axis of the input, and the axis."""
    if isinstance(module, nn.Transformer):
        yield "d_model", -1
    if own_tensors(vars(module)):
        return
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        count = len(module.normalized_shape)
        yield from ((f"normalized_shape.{i}", i - count) for i in range(count))
    elif isinstance(module, _InstanceNorm):
        yield "num_features", 0 if x.ndim == module._get_no_batch_dim() else 1
    elif isinstance(module, nn.GroupNorm):
        yield "num_channels", 1
        if module.num_groups == module.num_channels:
            yield "num_groups", 1
