"""Image files decoded with Pillow.

Letters: H W space.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from secateur.data._extra import import_extra
from secateur.errors import StorageError

# PIL.Image.Resampling.BILINEAR; Pillow itself is imported only when an image is decoded.
_BILINEAR = 2

if TYPE_CHECKING:
    from PIL.Image import Image


def decode_rgb(file: Path | bytes, place: str, dataset: str) -> "Image":
    """Decode one image file to RGB.

    Args:
        file: its path or its content.
        place: where it is, for the message.
        dataset: the data set it belongs to, for the message.

    Returns:
        The image.

    Raises:
        UsageError: Pillow is not installed.
        StorageError: the file is not an image, is damaged, or claims an absurd size.
    """
    pillow = import_extra("PIL.Image", dataset)
    source = io.BytesIO(file) if isinstance(file, bytes) else file
    try:
        with pillow.open(source) as opened:
            image: Image = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise StorageError(
            f"{place} could not be decoded: {error}. It must be a complete image file. "
            "Replace the damaged file by a good copy."
        ) from error
    return image


def centre_square(image: "Image", size: int) -> np.ndarray:
    """Resize the shorter side to 8/7 of ``size`` and cut the middle out.

    Args:
        image: RGB, any size.
        size: height and width of the result in pixels.

    Returns:
        uint8, shape ``[H, W, 3]`` with H = W = ``size``.
    """
    factor = round(size * 8 / 7) / min(image.size)
    width, height = (max(size, round(side * factor)) for side in image.size)
    resized = image.resize((width, height), _BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return np.array(resized.crop((left, top, left + size, top + size)))
