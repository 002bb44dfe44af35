"""Decoded images kept between runs in the user's cache folder."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Find the cache folder.

    Returns:
        ``$SECATEUR_CACHE``, else ``$XDG_CACHE_HOME/secateur``, else ``~/.cache/secateur``.
    """
    if own := os.environ.get("SECATEUR_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "secateur"
    return Path.home() / ".cache" / "secateur"


def cached_images(path: Path, count: int, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Read uint8 images from a cache file, or compute them and write the file.

    A damaged file is replaced. A folder that cannot be written only costs the time of computing.

    Args:
        path: the cache file, ``.npy``; its name must change whenever the images would.
        count: number of images that it must hold.
        compute: makes the images, uint8, shape ``[count, C, H, W]``.

    Returns:
        The images.
    """
    images = _read(path, count)
    if images is None:
        images = compute()
        try:
            _write(path, images)
        except OSError as error:
            logger.warning("The decoded images could not be kept in %s: %s", path, error)
    return images


def _read(path: Path, count: int) -> np.ndarray | None:
    try:
        images: np.ndarray = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError) as error:
        logger.warning("The cache file %s is damaged and will be replaced: %s", path, error)
        return None
    if images.dtype != np.uint8 or images.ndim != 4 or len(images) != count:
        logger.warning("The cache file %s holds something else and will be replaced", path)
        return None
    return images


def _write(path: Path, images: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    beside = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            np.save(file, images, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()
