"""CIFAR-10 and CIFAR-100, read by torchvision.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
"""

from pathlib import Path

import torch

from secateur.data._dataset import Dataset, Split, in_memory_dataset, split_off_validation
from secateur.data._extra import import_extra
from secateur.errors import StorageError

VALIDATION_IMAGES = 5000


def load_cifar10(
    root: Path | None,
    *,
    download: bool = False,
    validation: int = VALIDATION_IMAGES,
    size: int | None = None,
    limit: int | None = None,
) -> Dataset:
    """Load CIFAR-10.

    Args:
        root: folder that holds ``cifar-10-batches-py``; None means ``data``.
        download: fetch the files if they are missing.
        validation: how many of the last training images become the validation part.
        size: average-pool to this many pixels: 16, 8, 4, 2 or 1.
        limit: keep so many training images.

    Returns:
        The data set.

    Raises:
        UsageError: torchvision is missing, or an option is out of range.
        StorageError: the files are missing or damaged.
    """
    train, test, names = _read("CIFAR10", "cifar-10-batches-py", root, download)
    fitted, held_out = split_off_validation(train, validation, "cifar10")
    return in_memory_dataset(
        "cifar10",
        train=fitted,
        validation=held_out,
        test=test,
        class_names=names,
        flip=True,
        size=size,
        limit=limit,
    )


def load_cifar100(
    root: Path | None,
    *,
    download: bool = False,
    validation: int = VALIDATION_IMAGES,
    size: int | None = None,
    limit: int | None = None,
) -> Dataset:
    """Load CIFAR-100 with its 100 fine classes.

    Args:
        root: folder that holds ``cifar-100-python``; None means ``data``.
        download: fetch the files if they are missing.
        validation: how many of the last training images become the validation part.
        size: average-pool to this many pixels: 16, 8, 4, 2 or 1.
        limit: keep so many training images.

    Returns:
        The data set.

    Raises:
        UsageError: torchvision is missing, or an option is out of range.
        StorageError: the files are missing or damaged.
    """
    train, test, names = _read("CIFAR100", "cifar-100-python", root, download)
    fitted, held_out = split_off_validation(train, validation, "cifar100")
    return in_memory_dataset(
        "cifar100",
        train=fitted,
        validation=held_out,
        test=test,
        class_names=names,
        flip=True,
        size=size,
        limit=limit,
    )


def _read(
    class_name: str, folder: str, root: Path | None, download: bool
) -> tuple[Split, Split, tuple[str, ...]]:
    # torchvision compares the MD5 sum of every file before it reads one, and these files need it:
    # they are pickles.
    reader = getattr(import_extra("torchvision.datasets", class_name.lower()), class_name)
    base = Path("data") if root is None else root
    try:
        parts = [reader(base, train=train, download=download) for train in (True, False)]
    except RuntimeError as error:
        raise StorageError(
            f"{class_name} was not found, or is damaged, in {base / folder}. The unpacked files of "
            f"the Python version must lie there. Download them with download=true, or set root to "
            f"the folder that contains {folder}."
        ) from error
    train, test = (
        Split(
            images=torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(),
            labels=torch.tensor(part.targets, dtype=torch.int64),
        )
        for part in parts
    )
    return train, test, tuple(parts[0].classes)
