"""The 8x8 handwritten digits that come with scikit-learn.

Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, 1998 (its test part).
"""

from pathlib import Path

import torch
from torch import Tensor

from secateur.data._dataset import Dataset, Split, in_memory_dataset
from secateur.errors import UsageError

VALIDATION_SHARE = 0.15
TEST_SHARE = 0.25
SPLIT_SEED = 0


def load_digits(root: Path | None, *, size: int | None = None, limit: int | None = None) -> Dataset:
    """Load the digits, split 60 / 15 / 25 within every class, always the same way.

    Args:
        root: must be None, the images are embedded.
        size: average-pool to this many pixels: 8, 4, 2 or 1.
        limit: keep so many training images.

    Returns:
        The data set; grey value g of 0..16 is stored as 15 g.

    Raises:
        UsageError: a root is given, or an option is out of range.
    """
    if root is not None:
        raise UsageError(
            f"Data set 'digits' got root={str(root)!r}, but its images are embedded in "
            "scikit-learn. Leave root out."
        )
    # Imported here: scikit-learn takes a second to import, and the other data sets do without it.
    from sklearn.datasets import load_digits as sklearn_digits

    bunch = sklearn_digits()
    images = torch.from_numpy(bunch.images * 15).to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).long()
    parts = (Split(images=images[i], labels=labels[i]) for i in _stratified(labels))
    train, validation, test = parts
    return in_memory_dataset(
        "digits",
        train=train,
        validation=validation,
        test=test,
        class_names=tuple(str(name) for name in bunch.target_names),
        flip=False,
        size=size,
        limit=limit,
    )


def _stratified(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(SPLIT_SEED)
    train, validation, test = [], [], []
    for label in range(int(labels.max()) + 1):
        members = torch.nonzero(labels == label)[:, 0]
        members = members[torch.randperm(len(members), generator=generator)]
        first = round(VALIDATION_SHARE * len(members))
        second = first + round(TEST_SHARE * len(members))
        validation.append(members[:first])
        test.append(members[first:second])
        train.append(members[second:])
    # The training images are mixed, so that a prefix of them holds every class.
    mixed = torch.cat(train)
    mixed = mixed[torch.randperm(len(mixed), generator=generator)]
    return mixed, torch.cat(validation), torch.cat(test)
