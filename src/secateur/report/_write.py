"""Writes a file beside its place and renames it."""

from __future__ import annotations

import os
from pathlib import Path

from secateur.errors import StorageError


def write_beside(path: Path, text: str) -> Path:
    """Write a file beside its place and rename it, so that a reader never meets half of it.

    Args:
        path: Where the file shall be; its folder is made if it does not exist.
        text: What it shall hold.

    Returns:
        The path.

    Raises:
        StorageError: The file cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # Half of a pair of surrogates, which JSON can hold, is no text: it becomes "?".
            beside.write_text(text, encoding="utf-8", errors="replace", newline="\n")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}). A folder with room and the "
            "right to write was expected; free some space or choose another folder."
        ) from error
    return path
