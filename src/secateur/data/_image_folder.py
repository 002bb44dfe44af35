"""Folders of images, one per class, decoded only when a batch needs them.

Letters: B batch, C channels, H W space, N images.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from secateur.data._augment import Augment
from secateur.data._dataset import Dataset, Split
from secateur.data._extra import import_extra
from secateur.data._pillow import centre_square, decode_rgb
from secateur.errors import StorageError, UsageError

# Mean and deviation of ImageNet's training images, as torchvision's models expect them.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SPLIT_SEED = 0
NAME = "image-folder"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FolderImages:
    """Image files that are decoded when indexed.

    Attributes:
        files: one file per image.
        size: height and width that every image is brought to, in pixels.
    """

    files: tuple[Path, ...]
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """The four lengths ``(N, 3, size, size)``."""
        return (len(self.files), 3, self.size, self.size)

    def __getitem__(self, index_B: Tensor, /) -> Tensor:
        """Decode some images, resize their shorter side to 8/7 ``size`` and cut the middle out.

        Args:
            index_B: which images, int64, shape ``[B]``.

        Returns:
            uint8, shape ``[B, 3, size, size]``, on the CPU.

        Raises:
            StorageError: a file is not an image, or damaged.
        """
        images_BCHW = torch.empty(len(index_B), 3, self.size, self.size, dtype=torch.uint8)
        wanted = [self.files[number] for number in index_B.tolist()]
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for place, pixels in enumerate(pool.map(self._decode, wanted)):
                images_BCHW[place] = torch.from_numpy(pixels).permute(2, 0, 1)
        return images_BCHW

    def _decode(self, file: Path) -> np.ndarray:
        return centre_square(decode_rgb(file, str(file), NAME), self.size)


def load_image_folder(
    root: Path | None,
    *,
    size: int = 224,
    validation_share: float = 0.1,
    limit: int | None = None,
) -> Dataset:
    """Describe the images below ``root/train``, ``root/val`` and ``root/test``.

    Each holds one folder per class. Without ``test``, ``val`` is the test part and a validation
    part is cut from ``train``, always the same way; without ``val``, it is cut from ``train`` too.

    Args:
        root: the folder above; None means ``data``.
        size: height and width that the images are brought to, in pixels.
        validation_share: part of ``train`` that becomes the validation part where one is cut.
        limit: keep so many training images, drawn at random.

    Returns:
        The data set; images are decoded when a batch needs them.

    Raises:
        UsageError: torchvision is missing, or an option is out of range.
        StorageError: a folder is missing or empty, or the classes differ.
    """
    base = Path("data") if root is None else root
    if size < 1:
        raise UsageError(
            f"Data set 'image-folder' was asked for with size={size}, which must be at least 1. "
            "Common sizes are 224 and 64."
        )
    classes, train_files, train_labels = _scan(base / "train")
    held_out = base / "val"
    has_test = (base / "test").is_dir()
    test_folder = base / "test" if has_test else held_out
    test = _split(*_scan_same(test_folder, classes), size)
    order = torch.randperm(
        len(train_files), generator=torch.Generator().manual_seed(SPLIT_SEED)
    ).tolist()
    if has_test and held_out.is_dir():
        validation = _split(*_scan_same(held_out, classes), size)
    else:
        count = _count_held_out(len(order), validation_share)
        validation = _pick(train_files, train_labels, order[-count:], size)
        order = order[:-count]
    return Dataset(
        name=NAME,
        train=_pick(train_files, train_labels, _limited(order, limit), size),
        validation=validation,
        test=test,
        class_names=classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        augment=Augment(padding=size // 8, flip=True),
    )


def _scan(folder: Path) -> tuple[tuple[str, ...], list[Path], list[int]]:
    reader = import_extra("torchvision.datasets", NAME).ImageFolder
    try:
        found = reader(folder)
    except FileNotFoundError as error:
        raise StorageError(
            f"{folder} is missing or holds a class without images: {error}. There must be one "
            "folder per class with image files in it. Set root to the folder above train and val."
        ) from error
    files = [Path(file) for file, _ in found.samples]
    return tuple(found.classes), files, [label for _, label in found.samples]


def _scan_same(folder: Path, classes: tuple[str, ...]) -> tuple[list[Path], list[int]]:
    found, files, labels = _scan(folder)
    if found != classes:
        different = sorted(set(found) ^ set(classes))
        raise StorageError(
            f"{folder} has other classes than the training folder; the difference is "
            f"{', '.join(different[:5])}. Every part needs the same class folders."
        )
    return files, labels


def _split(files: Sequence[Path], labels: Sequence[int], size: int) -> Split:
    return Split(
        images=FolderImages(files=tuple(files), size=size),
        labels=torch.tensor(labels, dtype=torch.int64),
    )


def _pick(files: Sequence[Path], labels: Sequence[int], chosen: Sequence[int], size: int) -> Split:
    return _split([files[i] for i in chosen], [labels[i] for i in chosen], size)


def _count_held_out(count: int, share: float) -> int:
    held_out = round(count * share)
    if not 0 < held_out < count:
        raise UsageError(
            f"Data set 'image-folder' was asked for with validation_share={share}, which leaves "
            f"{held_out} of {count} images for validation. Choose a share between 0 and 1 that "
            "leaves images for both."
        )
    return held_out


def _limited(order: list[int], limit: int | None) -> list[int]:
    if limit is None:
        return order
    if not 0 < limit <= len(order):
        raise UsageError(
            f"Data set 'image-folder' was asked for with limit={limit}, but has {len(order)} "
            f"training images. Choose 1 to {len(order)}."
        )
    return order[:limit]
