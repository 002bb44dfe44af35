"""Checkpoints: everything a resumed run needs, replaced so that a crash leaves the old or the new.

``state.json`` names the file of tensors that belongs to it; renaming the new ``state.json`` over
the old one is the moment at which the new checkpoint takes over.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from secateur.errors import StorageError
from secateur.training.trainer._nested_state import flatten, unflatten

FOLDER = "checkpoint"
STATE = "state.json"
VERSION = 1


class _StateFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    kind: Annotated[str, Field(pattern="^secateur checkpoint$")] = "secateur checkpoint"
    version: Annotated[int, Field(ge=1, le=VERSION)] = VERSION
    tensors: Annotated[str, Field(pattern=r"^tensors-[0-9a-f]{16}\.safetensors$")]
    state: Any


def write_checkpoint(run: Path, state: Mapping[str, object]) -> None:
    """Replace the checkpoint of a run.

    Args:
        run: The run folder.
        state: Dictionaries, lists and tuples of tensors, numbers, texts and None.

    Raises:
        StorageError: The folder cannot be written.
    """
    folder = run / FOLDER
    tree, tensors = flatten(state)
    name = f"tensors-{secrets.token_hex(8)}.safetensors"
    content = _StateFile(tensors=name, state=tree).model_dump()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / name)
        _flush(folder / name)
        unfinished = folder / f".{STATE}"
        unfinished.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
        _flush(unfinished)
        unfinished.replace(folder / STATE)
        _flush(folder)
        for old in folder.glob("tensors-*.safetensors"):
            if old.name != name:
                old.unlink()
    except (OSError, SafetensorError) as error:
        raise StorageError(
            f"The checkpoint in {folder} could not be written: {error}. "
            "Check that the folder can be written and the disk has room."
        ) from error


def read_checkpoint(run: Path) -> dict[str, Any]:
    """Read the checkpoint of a run.

    Args:
        run: The run folder.

    Returns:
        What was given to `write_checkpoint`; tensors are on the CPU.

    Raises:
        StorageError: There is no checkpoint, or it is damaged or foreign.
    """
    folder = run / FOLDER
    try:
        text = (folder / STATE).read_bytes()
    except FileNotFoundError as error:
        raise StorageError(
            f"{run} holds no checkpoint, so the run cannot be resumed. "
            "Checkpoints are written after every epoch; start this run again."
        ) from error
    try:
        content = _StateFile.model_validate(json.loads(text))
        tensors = load_file(folder / content.tensors)
        state = unflatten(content.state, tensors)
    except (OSError, ValueError, RecursionError, SafetensorError, ValidationError) as error:
        raise StorageError(
            f"The checkpoint in {folder} is damaged: {error}. "
            "Restore it from a copy, or start the run again."
        ) from error
    if not isinstance(state, dict):
        raise StorageError(
            f"The checkpoint in {folder} holds a {type(state).__name__} instead of a state. "
            "Restore it from a copy, or start the run again."
        )
    return state


def has_checkpoint(run: Path) -> bool:
    """Say whether a run can be resumed."""
    return (run / FOLDER / STATE).exists()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
