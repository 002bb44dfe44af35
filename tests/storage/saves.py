"""Models to save, and saves written byte by byte, for the tests of this folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from secateur.storage import save
from secateur.surgery import Edit


def small() -> nn.Sequential:
    """Linear(3, 4)-ReLU-Linear(4, 2)."""
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def small_cut() -> nn.Sequential:
    """`small` after its hidden units 1 and 3 went, cut by hand."""
    full = small()
    model = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(full[0].weight[[0, 2]])
        model[0].bias.copy_(full[0].bias[[0, 2]])
        model[2].weight.copy_(full[2].weight[:, [0, 2]])
        model[2].bias.copy_(full[2].bias)
    vars(model)["_secateur_edit"] = Edit(
        kept={"0.weight": {0: (0, 2)}, "0.bias": {0: (0, 2)}, "2.weight": {1: (0, 2)}},
        attributes={"0": {"out_features": 2}, "2": {"in_features": 2}},
    )
    return model


def all_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer under each of its names."""
    return {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }


def assert_same_bits(first: nn.Module, second: nn.Module) -> None:
    """Compare names, dtypes, shapes and bytes of all tensors."""
    left, right = all_tensors(first), all_tensors(second)
    assert list(left) == list(right)
    for name, tensor in left.items():
        other = right[name]
        assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape), name
        assert _bytes(tensor) == _bytes(other), name


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def saved(model: nn.Module, folder: Path) -> Path:
    """Save and return the folder."""
    save(model, folder)
    return folder


def rewrite_structure(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change structure.json as somebody would who knows how the checksum is made."""
    path = folder / "structure.json"
    content = json.loads(path.read_text())
    del content["checksum"]
    change(content)
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    content["checksum"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(content))


def safetensors_bytes(header: object, data: bytes) -> bytes:
    """A safetensors file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data
