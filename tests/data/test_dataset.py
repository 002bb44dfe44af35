"""Splits, statistics, pooling and limits."""

import re

import pytest
import torch
from torch.testing import assert_close

from secateur.data import Split, in_memory_dataset
from secateur.errors import UsageError


def split(count, side=4, channels=3, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, channels, side, side)
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return Split(images=images, labels=torch.arange(count) % classes)


def dataset(**changes):
    parts = {"train": split(20), "validation": split(6, seed=1), "test": split(7, seed=2)}
    names = ("a", "b", "c", "d", "e")
    return in_memory_dataset("toy", **(parts | {"class_names": names, "flip": True} | changes))


def test_fields_follow_from_the_images():
    toy = dataset(train=split(20, 16), validation=split(6, 16), test=split(7, 16))
    assert (toy.num_classes, toy.in_channels, toy.image_size) == (5, 3, 16)
    assert (toy.augment.padding, toy.augment.flip) == (2, True)
    assert (len(toy.train), len(toy.validation), len(toy.test)) == (20, 6, 7)


def test_statistics_are_those_of_the_training_images():
    toy = dataset(train=split(9000))
    scaled = toy.train.images.double() / 255
    assert_close(toy.mean, tuple(scaled.mean(dim=(0, 2, 3)).tolist()))
    deviation = scaled.transpose(0, 1).flatten(1).std(dim=1, correction=0)
    assert_close(toy.std, tuple(deviation.tolist()))


def test_a_constant_channel_gets_deviation_one():
    train = split(20)
    train.images[:, 1] = 51
    toy = dataset(train=train)
    assert toy.mean[1] == pytest.approx(0.2)
    assert toy.std[1] == 1.0


def test_pooling_averages_squares_and_rounds():
    train = split(20)
    train.images[0, 0, :2, :2] = torch.tensor([[1, 2], [2, 2]])  # mean 1.75
    train.images[0, 0, :2, 2:] = torch.tensor([[1, 1], [1, 2]])  # mean 1.25
    toy = dataset(train=train, size=2)
    assert toy.train.images[0, 0, 0].tolist() == [2, 1]
    assert toy.test.images.shape == (7, 3, 2, 2)
    assert toy.train.images.dtype == torch.uint8


def test_a_limit_keeps_the_first_training_images_only():
    toy = dataset(limit=3)
    assert torch.equal(toy.train.images, split(20).images[:3])
    assert toy.train.labels.tolist() == [0, 1, 2]
    assert (len(toy.validation), len(toy.test)) == (6, 7)
    scaled = split(20).images[:3].double() / 255
    assert_close(toy.mean, tuple(scaled.mean(dim=(0, 2, 3)).tolist()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"limit": 0}, "'toy' was asked for with limit=0, but has 20 training images. Choose 1 to"),
        ({"limit": 21}, "'toy' was asked for with limit=21, but has 20 training images."),
        ({"size": 3}, "with size=3, but its images have 4 x 4 pixels. Choose a size that divides"),
        ({"size": 0}, "with size=0, but its images have 4 x 4 pixels."),
        ({"class_names": ("a", "b", "c", "d")}, "has label 4, but there are 4 classes, so labels"),
        (
            {"test": split(3, side=8)},
            "Part 'test' of data set 'toy' has images of shape (3, 8, 8), part 'train' of "
            "(3, 4, 4). Bring all images to one shape.",
        ),
    ],
)
def test_wrong_settings_name_the_value_and_the_cure(changes, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        dataset(**changes)


def test_an_empty_part_is_refused():
    empty = Split(images=torch.zeros(0, 3, 4, 4, dtype=torch.uint8), labels=torch.zeros(0).long())
    with pytest.raises(UsageError, match=r"Part 'validation' of data set 'toy' is empty\. Every"):
        dataset(validation=empty)


def test_a_negative_label_is_refused():
    bad = split(6)
    bad.labels[2] = -1
    with pytest.raises(UsageError, match=r"Part 'test' of data set 'toy' has label -1"):
        dataset(test=bad)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            torch.zeros(3, 4, 4, dtype=torch.uint8),
            torch.zeros(3).long(),
            "images of shape (3, 4, 4) and labels of shape (3,), but needs [N, C, H, W] and [N].",
        ),
        (
            torch.zeros(3, 1, 4, 4, dtype=torch.uint8),
            torch.zeros(2).long(),
            "and labels of shape (2,), but needs",
        ),
        (
            torch.zeros(3, 1, 4, 4, dtype=torch.uint8),
            torch.zeros(3),
            "labels of dtype torch.float32, but needs torch.int64. Convert them with labels.long()",
        ),
        (
            torch.zeros(3, 1, 4, 4),
            torch.zeros(3).long(),
            "images of dtype torch.float32, but needs torch.uint8. Scale them to 0..255",
        ),
    ],
)
def test_a_split_checks_what_it_is_given(images, labels, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        Split(images=images, labels=labels)
