"""MNIST and Fashion-MNIST, read from their idx files.

Sources: LeCun et al., "Gradient-based learning applied to document recognition", Proceedings of the
IEEE 1998; Xiao et al., "Fashion-MNIST", 2017 (arXiv 1708.07747). The idx format: two zero bytes, a
type (8 is uint8), the number of axes, the length of every axis as big-endian uint32, the values.
"""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secateur.data._dataset import Dataset, Split, in_memory_dataset, split_off_validation
from secateur.data._extra import import_extra
from secateur.errors import StorageError

VALIDATION_IMAGES = 5000
UINT8 = 8
FASHION_CLASSES = (
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


def load_mnist(
    root: Path | None,
    *,
    download: bool = False,
    validation: int = VALIDATION_IMAGES,
    size: int | None = None,
    limit: int | None = None,
) -> Dataset:
    """Load MNIST.

    Args:
        root: folder that holds the four idx files (plain or .gz), itself or in ``MNIST/raw``; None
            means ``data``.
        download: fetch the files if they are missing (needs torchvision).
        validation: how many of the last training images become the validation part.
        size: average-pool to this many pixels: 14, 7, 4, 2 or 1.
        limit: keep so many training images.

    Returns:
        The data set.

    Raises:
        UsageError: an option is out of range.
        StorageError: a file is missing or damaged.
    """
    train, test = _read("MNIST", root, download)
    fitted, held_out = split_off_validation(train, validation, "mnist")
    return in_memory_dataset(
        "mnist",
        train=fitted,
        validation=held_out,
        test=test,
        class_names=tuple("0123456789"),
        flip=False,
        size=size,
        limit=limit,
    )


def load_fashion_mnist(
    root: Path | None,
    *,
    download: bool = False,
    validation: int = VALIDATION_IMAGES,
    size: int | None = None,
    limit: int | None = None,
) -> Dataset:
    """Load Fashion-MNIST.

    Args:
        root: folder that holds the four idx files (plain or .gz), itself or in
            ``FashionMNIST/raw``; None means ``data``.
        download: fetch the files if they are missing (needs torchvision).
        validation: how many of the last training images become the validation part.
        size: average-pool to this many pixels: 14, 7, 4, 2 or 1.
        limit: keep so many training images.

    Returns:
        The data set.

    Raises:
        UsageError: an option is out of range.
        StorageError: a file is missing or damaged.
    """
    train, test = _read("FashionMNIST", root, download)
    fitted, held_out = split_off_validation(train, validation, "fashion-mnist")
    return in_memory_dataset(
        "fashion-mnist",
        train=fitted,
        validation=held_out,
        test=test,
        class_names=FASHION_CLASSES,
        flip=True,
        size=size,
        limit=limit,
    )


def read_idx(path: Path, axes: int) -> Tensor:
    """Read one idx file of uint8 values.

    Args:
        path: the file; a name that ends in ``.gz`` is unpacked.
        axes: number of axes that the array must have.

    Returns:
        The array, uint8.

    Raises:
        StorageError: the file is truncated, damaged or something else.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise StorageError(
            f"{path} could not be unpacked: {error}. It must be a complete gzip file. "
            "Fetch the file again."
        ) from error
    header = 4 + 4 * axes
    magic = bytes((0, 0, UINT8, axes))
    if len(content) < header:
        raise StorageError(
            f"{path} holds {len(content)} bytes, too few for the header of an idx file with "
            f"{axes} axes. The file is truncated; fetch it again."
        )
    if content[:4] != magic:
        raise StorageError(
            f"{path} starts with bytes {content[:4].hex(' ')}, but an idx file of uint8 values "
            f"with {axes} axes starts with {magic.hex(' ')}. Fetch the file again."
        )
    shape = struct.unpack(f">{axes}I", content[4:header])
    values = np.frombuffer(content, np.uint8, offset=header)
    expected = int(np.prod(shape, dtype=object))
    if len(values) != expected:
        raise StorageError(
            f"{path} holds {len(values)} values, but its header promises "
            f"{' x '.join(map(str, shape))}. The file is truncated or damaged; fetch it again."
        )
    return torch.from_numpy(values.reshape(shape).copy())


def _read(class_name: str, root: Path | None, download: bool) -> tuple[Split, Split]:
    base = Path("data") if root is None else root
    if download:
        reader = getattr(import_extra("torchvision.datasets", class_name), class_name)
        reader(base, download=True)
    train, test = (_read_part(class_name, base, prefix) for prefix in ("train", "t10k"))
    return train, test


def _read_part(class_name: str, base: Path, prefix: str) -> Split:
    image_path = _find(class_name, base, f"{prefix}-images-idx3-ubyte")
    label_path = _find(class_name, base, f"{prefix}-labels-idx1-ubyte")
    images = read_idx(image_path, axes=3)[:, None]
    labels = read_idx(label_path, axes=1).long()
    if len(images) != len(labels):
        raise StorageError(
            f"{image_path} holds {len(images)} images and {label_path} {len(labels)} labels, which "
            "must be equally many. The files do not belong together; fetch both again."
        )
    return Split(images=images, labels=labels)


def _find(class_name: str, base: Path, name: str) -> Path:
    for folder in (base, base / class_name / "raw"):
        for candidate in (folder / name, folder / f"{name}.gz"):
            if candidate.is_file():
                return candidate
    raise StorageError(
        f"{class_name} needs the file {name} (or {name}.gz), which is neither in {base} nor in "
        f"{base / class_name / 'raw'}. Set root to the folder of the files, or download them with "
        "download=true."
    )
