"""Labelled images in three parts: train, validation and test.

Letters: B batch, C channels, H W space, N images.
"""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from secateur.data._augment import Augment
from secateur.errors import UsageError

PartName = Literal["train", "validation", "test"]

# Images per step of a pass over a whole split; bounds the float copies made on the way.
CHUNK = 4096


class Images(Protocol):
    """N images of one size: a uint8 tensor, or something that decodes them when asked."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The four lengths ``(N, C, H, W)``."""
        ...

    def __getitem__(self, index_B: Tensor, /) -> Tensor:
        """Return the images of an int64 index as uint8, shape ``[B, C, H, W]``."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Split:
    """Images and their labels.

    Attributes:
        images: uint8 images, shape ``[N, C, H, W]``.
        labels: class indices, shape ``[N]``, int64.
    """

    images: Images
    labels: Tensor

    def __post_init__(self) -> None:
        """Check that images and labels belong together.

        Raises:
            UsageError: a shape or dtype is wrong.
        """
        shape = tuple(self.images.shape)
        if len(shape) != 4 or tuple(self.labels.shape) != shape[:1]:
            raise UsageError(
                f"A split got images of shape {shape} and labels of shape "
                f"{tuple(self.labels.shape)}, but needs [N, C, H, W] and [N]. "
                "Give one label per image."
            )
        if self.labels.dtype != torch.int64:
            raise UsageError(
                f"A split got labels of dtype {self.labels.dtype}, but needs torch.int64. "
                "Convert them with labels.long()."
            )
        if isinstance(self.images, Tensor) and self.images.dtype != torch.uint8:
            raise UsageError(
                f"A split got images of dtype {self.images.dtype}, but needs torch.uint8. "
                "Scale them to 0..255 and convert them."
            )

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Dataset:
    """Labelled images in three disjoint parts, and what training needs to know about them.

    Attributes:
        name: what it was loaded by.
        train: what weights are fitted to.
        validation: what decisions are based on.
        test: what is reported, and nothing else.
        class_names: one name per class.
        mean: mean per channel of the training images, black 0 and white 1.
        std: standard deviation per channel of the training images, on the same scale.
        augment: the customary augmentation of this data.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: Augment

    def __post_init__(self) -> None:
        """Check that the parts fit together.

        Raises:
            UsageError: a part is empty, the parts differ in image shape, or a label names no class.
        """
        for part in ("train", "validation", "test"):
            split: Split = getattr(self, part)
            if len(split) == 0:
                raise UsageError(
                    f"Part {part!r} of data set {self.name!r} is empty. "
                    "Every part needs at least one image; give more images."
                )
            if split.images.shape[1:] != self.train.images.shape[1:]:
                raise UsageError(
                    f"Part {part!r} of data set {self.name!r} has images of shape "
                    f"{tuple(split.images.shape[1:])}, part 'train' of "
                    f"{tuple(self.train.images.shape[1:])}. Bring all images to one shape."
                )
            self._check_labels(part, split)

    def _check_labels(self, part: str, split: Split) -> None:
        low, high = int(split.labels.min()), int(split.labels.max())
        if low < 0 or high >= self.num_classes:
            raise UsageError(
                f"Part {part!r} of data set {self.name!r} has label {low if low < 0 else high}, "
                f"but there are {self.num_classes} classes, so labels must lie in "
                f"0..{self.num_classes - 1}. Check the labels or the list of classes."
            )

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        """Height of an image in pixels; width is the same for every reference data set."""
        return self.train.images.shape[2]


def in_memory_dataset(
    name: str,
    *,
    train: Split,
    validation: Split,
    test: Split,
    class_names: tuple[str, ...],
    flip: bool,
    size: int | None = None,
    limit: int | None = None,
) -> Dataset:
    """Make a data set of tensors; mean and deviation are those of the training images that remain.

    Args:
        name: what the user calls it.
        train: training images, a tensor.
        validation: validation images, a tensor.
        test: test images, a tensor.
        class_names: one name per class.
        flip: whether mirrored images belong to the same class.
        size: average-pool all images to this many pixels; it must divide their size.
        limit: keep only the first so many training images.

    Returns:
        The data set, with a shift of one eighth of the image size as augmentation.

    Raises:
        UsageError: ``size`` or ``limit`` is out of range, or the parts do not fit together.
    """
    if limit is not None:
        train = _first(train, limit, name)
    if size is not None:
        train, validation, test = (
            _pooled(split, size, name) for split in (train, validation, test)
        )
    mean, std = channel_statistics(train.images)
    return Dataset(
        name=name,
        train=train,
        validation=validation,
        test=test,
        class_names=class_names,
        mean=mean,
        std=std,
        augment=Augment(padding=train.images.shape[2] // 8, flip=flip),
    )


def split_off_validation(split: Split, count: int, name: str) -> tuple[Split, Split]:
    """Cut the last images off as validation part.

    Args:
        split: N labelled images, a tensor.
        count: images of the validation part, 1 to N - 1.
        name: of the data set, for the message.

    Returns:
        Train and validation.

    Raises:
        UsageError: ``count`` is out of range.
    """
    if not 0 < count < len(split):
        raise UsageError(
            f"Data set {name!r} was asked for with validation={count}, but has {len(split)} images "
            f"to share between train and validation. Choose 1 to {len(split) - 1}."
        )
    first = len(split) - count
    return _range(split, 0, first), _range(split, first, len(split))


def channel_statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation per channel, black 0 and white 1.

    Args:
        images: uint8, shape ``[N, C, H, W]``.

    Returns:
        Mean and (population) standard deviation, C numbers each; a constant channel gets
        deviation 1, so that it can be divided by.
    """
    count, channels, height, width = images.shape
    # Whole numbers: sums of up to 2**63 are exact, so the order of the images does not matter.
    total_C = torch.zeros(channels, dtype=torch.int64)
    square_C = torch.zeros(channels, dtype=torch.int64)
    for start in range(0, count, CHUNK):
        chunk = images[torch.arange(start, min(start + CHUNK, count))].long()
        total_C += chunk.sum(dim=(0, 2, 3))
        square_C += chunk.square().sum(dim=(0, 2, 3))
    pixels = count * height * width
    mean_C = total_C.double() / pixels
    std_C = (square_C.double() / pixels - mean_C.square()).clamp_min(0).sqrt()
    std_C = torch.where(std_C > 0, std_C, 255.0)
    return tuple((mean_C / 255).tolist()), tuple((std_C / 255).tolist())


def _first(split: Split, limit: int, name: str) -> Split:
    if not 0 < limit <= len(split):
        raise UsageError(
            f"Data set {name!r} was asked for with limit={limit}, but has {len(split)} training "
            f"images. Choose 1 to {len(split)}."
        )
    return _range(split, 0, limit)


def _range(split: Split, start: int, stop: int) -> Split:
    index = torch.arange(start, stop)
    return Split(images=split.images[index], labels=split.labels[index])


def _pooled(split: Split, size: int, name: str) -> Split:
    count, channels, height, width = split.images.shape
    if size <= 0 or height % size != 0 or width % size != 0:
        raise UsageError(
            f"Data set {name!r} was asked for with size={size}, but its images have {height} x "
            f"{width} pixels. Choose a size that divides both."
        )
    pooled = torch.empty(count, channels, size, size, dtype=torch.uint8)
    for start in range(0, count, CHUNK):
        index = torch.arange(start, min(start + CHUNK, count))
        chunk = F.adaptive_avg_pool2d(split.images[index].float(), size)
        pooled[start : start + len(index)] = chunk.round().to(torch.uint8)
    return Split(images=pooled, labels=split.labels)
