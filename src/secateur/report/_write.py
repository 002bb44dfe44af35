"""Writes a file beside its place and renames it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from secateur.errors import StorageError


def write_beside(path: Path, text: str) -> Path:
    """Write a file beside its place and rename it, so that a reader never meets half of it.

    Args:
        path: Where the file shall be.
        text: What it shall hold.

    Returns:
        The path.

    Raises:
        StorageError: The file cannot be written.
    """
    try:
        handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(text)
            Path(beside).chmod(0o666 & ~_umask())
            Path(beside).replace(path)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written ({error.strerror or error}). A folder with room and the "
            "right to write was expected; free some space or choose another folder."
        ) from error
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
