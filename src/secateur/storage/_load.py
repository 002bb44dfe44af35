"""Loading a model: build it without memory, cut it as recorded, pour the tensors in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from secateur.errors import SecateurError, StorageError, UsageError
from secateur.storage._build import (
    BuildModel,
    build_on_meta,
    build_with_values,
    check_builder,
    find_meta,
)
from secateur.storage._document import Document
from secateur.storage._fill import fill_
from secateur.storage._fit import fitting_edit
from secateur.storage._header import Entry, read_header
from secateur.storage._save import STRUCTURE, TENSORS, digest, waiting_structures
from secateur.storage._structure_file import read
from secateur.surgery import Edit, replay_, unwrapped


def load(
    build_model: BuildModel,
    folder: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
) -> nn.Module:
    """Load a model that `save` wrote; nothing is ever unpickled.

    The model is built on the meta device, so that its full size takes no memory, or on the CPU
    where its constructor needs values. The random state is left as it was.

    Args:
        build_model: Function without arguments that builds the model at its original size, as the
            training script did.
        folder: Folder with model.safetensors and structure.json.
        device: Where the tensors go.

    Returns:
        The smaller model, in the mode and with the `requires_grad` flags it was built with. It
        can be trained, cut and saved further.

    Raises:
        StorageError: If a file is missing, damaged, foreign or hostile, or belongs to another
            model than `build_model` builds.
        UsageError: If `build_model` is not a function that returns a model.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import secateur
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     secateur.save(torch.nn.Linear(3, 2), folder)
        ...     secateur.load(lambda: torch.nn.Linear(3, 2), folder)
        Linear(in_features=3, out_features=2, bias=True)
    """
    check_builder(build_model)
    target = Path(folder)
    document, tensors = _read(target, torch.device(device))
    model = build_on_meta(build_model)
    if model is not None:
        _finish(model, document, tensors, target)
    if model is None or find_meta(model) is not None:
        model = build_with_values(build_model)
        _finish(model, document, tensors, target)
        left = find_meta(model)
        if left is not None:
            raise UsageError(
                f"build_model leaves {left} on the meta device, and it is neither a parameter nor "
                "a buffer, so no file holds its values. Build it with values or register it as a "
                "buffer."
            )
    if torch.device(device).type != "cpu":
        model.to(device)  # everything is there; modules with more to move override _apply
    return model


def _read(folder: Path, device: torch.device) -> tuple[Document, dict[str, Tensor]]:
    path = folder / TENSORS
    if not path.is_file():
        raise StorageError(
            f"{folder} holds no {TENSORS}. Give the folder that secateur.save() wrote to."
        )
    header = read_header(path)
    sha256 = digest(path)
    # A save that crashed between its two renames: the structure waits under the tensors' digest.
    # Looking there first also keeps a reader right that runs beside a save.
    structure = next(iter(waiting_structures(folder, sha256)), folder / STRUCTURE)
    document = read(structure)
    _check_header(path, header, structure, document)
    if document.sha256 != sha256:
        raise StorageError(
            f"{path} has SHA-256 {sha256}, and {structure} expects {document.sha256}. One of the "
            "two files is damaged or belongs to another save; fetch both again, or save the model "
            "again."
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return document, {
                name: _own(file.get_tensor(name), device) for name in document.tensors
            }
    except SafetensorError as error:
        raise StorageError(
            f"{path} cannot be read: {error}. Fetch the folder again, or save the model again."
        ) from error


def _own(tensor: Tensor, device: torch.device) -> Tensor:
    return tensor.clone() if device.type == "cpu" else tensor.to(device)  # no view of the file


def _check_header(
    path: Path, header: Mapping[str, Entry], structure: Path, document: Document
) -> None:
    advice = (
        "One of the two files is damaged or belongs to another save; fetch both again, or save "
        "the model again."
    )
    for name in sorted(header.keys() ^ document.tensors.keys()):
        has, lacks = (path, structure) if name in header else (structure, path)
        raise StorageError(f"Tensor {name[:200]!r} is in {has} but not in {lacks}. {advice}")
    for name, record in document.tensors.items():
        found = header[name]
        if (found.dtype, found.shape) != (record.dtype, record.shape):
            raise StorageError(
                f"Tensor {name!r} is {found.dtype} {list(found.shape)} in {path}, and {structure} "
                f"expects {record.dtype} {list(record.shape)}. {advice}"
            )


def _finish(
    model: nn.Module, document: Document, tensors: Mapping[str, Tensor], folder: Path
) -> None:
    model = unwrapped(model)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if nn.parameter.is_lazy(tensor):
            raise UsageError(
                f"build_model leaves tensor {name!r} without a shape. Let it run the model "
                "once before it returns it."
            )
    edit = fitting_edit(document.edit, model, folder / STRUCTURE)
    if edit != Edit():
        _replay_(model, edit, folder)
    fill_(model, document, tensors, folder)


def _replay_(model: nn.Module, edit: Edit, folder: Path) -> None:
    try:
        replay_(model, edit)
    except SecateurError as error:
        raise StorageError(
            f"The edit in {folder / STRUCTURE} cannot be carried out on the model that "
            f"build_model returned. {error}"
        ) from error
