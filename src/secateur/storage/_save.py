"""Saving a model: two files, replaced so that a crash leaves the old save or the new one.

Both files are complete on the disk before anything is replaced. Renaming model.safetensors is the
moment at which the new save takes over: structure.json follows, and until it has, the new one lies
beside it under a name that holds the digest of its model.safetensors, where `load` finds it.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
import time
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from secateur.errors import StorageError, UsageError
from secateur.storage._dtypes import BY_TORCH
from secateur.storage._inventory import (
    Held,
    extra_states,
    inventory,
    storable,
    true_values,
)
from secateur.storage._json import JsonObject
from secateur.storage._positions import write_runs
from secateur.storage._structure_file import render
from secateur.surgery import Edit, unwrapped

TENSORS = "model.safetensors"
STRUCTURE = "structure.json"
_LEFTOVERS = (".saving-*", ".structure-*")
_STALE_SECONDS = 3600.0


def save(model: nn.Module, folder: str | os.PathLike[str]) -> None:
    """Save a model as model.safetensors and structure.json; nothing is pickled.

    All parameters and buffers are stored, buffers that `state_dict` leaves out too, tied ones
    once. A good save in the folder is replaced as a whole or not at all. Tensors that are views of
    one another become tensors of their own; optimizers are not saved.

    Args:
        model: The model, smaller than it was built or not.
        folder: Where to; made if it does not exist. Other files in it are left alone.

    Raises:
        UsageError: If the model holds something that the files cannot hold.
        StorageError: If the folder cannot be written.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import secateur
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     secateur.save(torch.nn.Linear(3, 2), folder)
        ...     secateur.load(lambda: torch.nn.Linear(3, 2), folder)
        Linear(in_features=3, out_features=2, bias=True)
    """
    model = unwrapped(model)
    values, all_held = true_values(model), inventory(model)
    tensors = {held.names[0]: storable(held, values[held.names[0]]) for held in all_held}
    content: JsonObject = {
        "edit": _edit_content(_edit_of(model)),
        "tensors": {held.names[0]: _tensor_content(held) for held in all_held},
        "extra_state": extra_states(model),
    }
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        _replace(target, tensors, content)
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"The model could not be saved in {target}: {error}. "
            "Check that the folder can be written and the disk has room."
        ) from error


def _edit_of(model: nn.Module) -> Edit:
    """Return what surgery did to a model since it was built; empty if nothing."""
    for path, module in model.named_modules():
        if module is not model and vars(module).get("_secateur_edit", Edit()) != Edit():
            raise UsageError(
                f"Module {path!r} of the model was made smaller on its own, so the model as a "
                f"whole cannot be saved. Save and load that part: secateur.save(model.{path}, "
                "folder)."
            )
    edit: Edit = vars(model).get("_secateur_edit", Edit())
    return edit


def digest(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def waiting_structures(folder: Path, sha256: str) -> list[Path]:
    """Return the structure files that a crash kept from their place beside model.safetensors."""
    return sorted(folder.glob(f".structure-{sha256}-*.json"))


def _replace(folder: Path, tensors: dict[str, Tensor], content: JsonObject) -> None:
    token = secrets.token_hex(8)
    new_tensors = folder / f".saving-{token}.safetensors"
    unfinished = folder / f".saving-{token}.json"
    try:
        save_file(tensors, new_tensors, metadata={"format": "pt"})
        _flush(new_tensors)
        sha256 = digest(new_tensors)
        unfinished.write_bytes(render({"sha256": sha256, **content}))
        _flush(unfinished)
        # safetensors lets nobody but the owner read what it writes.
        new_tensors.chmod(stat.S_IMODE(unfinished.stat().st_mode))
        new_structure = folder / f".structure-{sha256}-{token}.json"
        unfinished.replace(new_structure)
        _flush_folder(folder)
        try:
            new_tensors.replace(folder / TENSORS)
        except OSError:
            new_structure.unlink(missing_ok=True)
            raise
    finally:
        new_tensors.unlink(missing_ok=True)
        unfinished.unlink(missing_ok=True)
    _flush_folder(folder)
    new_structure.replace(folder / STRUCTURE)
    _flush_folder(folder)
    _sweep(folder)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sweep(folder: Path) -> None:
    """Take away what crashed saves left; younger files may belong to a save that is under way."""
    for pattern in _LEFTOVERS:
        for path in folder.glob(pattern):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()


def _tensor_content(held: Held) -> JsonObject:
    return {
        "shape": list(held.tensor.shape),
        "dtype": BY_TORCH[held.tensor.dtype],
        "is_parameter": held.is_parameter,
        "persistent": held.persistent,
        "aliases": list(held.names[1:]),
    }


def _edit_content(edit: Edit) -> JsonObject:
    for name, axes in edit.kept.items():
        for axis, positions in axes.items():
            if not positions:
                raise UsageError(f"Nothing is left of tensor {name!r} on axis {axis}.")
    return {
        "kept": {
            name: {str(axis): write_runs(positions) for axis, positions in axes.items()}
            for name, axes in edit.kept.items()
        },
        "stubs": [
            {
                "module": stub.module,
                "kind": stub.kind,
                "children": list(stub.children),
                "output": None if stub.output is None else list(stub.output),
            }
            for stub in edit.stubs
        ],
        "attributes": {
            path: {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in values.items()
            }
            for path, values in edit.attributes.items()
        },
        "attentions": list(edit.attentions),
    }
