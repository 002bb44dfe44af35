"""A masked model as plain tensors for a file: bits that say which weights are left, and these."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from secateur.errors import StorageError, UsageError
from secateur.masks._bits import pack, unpack
from secateur.structure import named_tensors

BITS, VALUES = ".mask_bits", ".mask_values"


def compress(model: nn.Module, kept: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Write a model with masked weights as dense tensors that ``safetensors`` can store.

    A weight of n entries, k of them kept, takes n / 8 bytes and k values.

    Args:
        model: The model.
        kept: Masks by qualified parameter name, such as `Masks.kept`.

    Returns:
        ``name.mask_bits`` (uint8) and ``name.mask_values`` (``[k]``) for masked parameters, and
        every other parameter and buffer of ``model.state_dict()`` under its name; copies, on the
        CPU, ties once.

    Raises:
        UsageError: A mask is for something that the model does not have.
    """
    tensors = _stored(model)
    unknown = [name for name in kept if name not in tensors]
    if unknown:
        raise UsageError(
            f"There is a mask for {unknown[0]!r}, which this {type(model).__name__} does not "
            "have. Use names as in `dict(model.named_parameters())`."
        )
    written: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach()
        if name in kept:
            written[name + BITS] = pack(kept[name]).cpu()
            written[name + VALUES] = value[kept[name].to(value.device)].cpu()
        else:
            written[name] = value.cpu().clone(memory_format=torch.contiguous_format)
    return written


@torch.no_grad()
def decompress_(model: nn.Module, written: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fill a model with what `compress` wrote.

    Args:
        model: A model with the parameters and buffers of the one that was written.
        written: What `compress` returned.

    Returns:
        The masks by name, for `Masks.set_`, on the CPU.

    Raises:
        StorageError: The tensors are not those of this model. The model is as it was.
    """
    tensors = _stored(model)
    kept: dict[str, Tensor] = {}
    values: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name + BITS in written:
            kept[name], values[name] = _read_masked(name, tensor, written)
        else:
            values[name] = _read_whole(name, tensor, written)
    expected = {n + end for n in kept for end in (BITS, VALUES)} | (tensors.keys() - kept.keys())
    if extra := sorted(set(written) - expected):
        raise StorageError(
            f"The file holds {', '.join(extra[:3])}, which this {type(model).__name__} does not "
            "have. Build the model that was written."
        )
    for name, value in values.items():
        tensors[name].copy_(value)
    return kept


def _stored(model: nn.Module) -> dict[str, Tensor]:
    """Tensors of the state dict by name, each under the first of its names."""
    persistent = model.state_dict(keep_vars=True).keys()
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in named_tensors(model).items():
        if name in persistent:
            found.setdefault(id(tensor), (name, tensor))
    return dict(found.values())


def _read_masked(name: str, tensor: Tensor, written: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    try:
        mask = unpack(written[name + BITS], tensor.shape)
    except UsageError as error:
        raise StorageError(f"{name} cannot be read. {error}") from error
    values = written.get(name + VALUES)
    if values is None or values.shape != (int(mask.sum()),):
        found = "no values" if values is None else f"values of shape {list(values.shape)}"
        raise StorageError(
            f"The mask of {name} keeps {int(mask.sum())} weights, and the file holds {found}. It "
            "is damaged or was put together from two; write it again."
        )
    whole = torch.zeros(tensor.shape, dtype=values.dtype)
    whole[mask] = values
    return mask, whole


def _read_whole(name: str, tensor: Tensor, written: Mapping[str, Tensor]) -> Tensor:
    value = written.get(name)
    if value is None or value.shape != tensor.shape:
        found = "is not in the file" if value is None else f"has shape {list(value.shape)} there"
        raise StorageError(
            f"{name} of shape {list(tensor.shape)} {found}. Build the model that was written."
        )
    return value
