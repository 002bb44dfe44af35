"""Data sets by name, and the embedded digits."""

import re

import pytest
import torch
from sklearn.datasets import load_digits

from secateur.data import available, load
from secateur.errors import UsageError


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def as_rows(images):
    return {tuple(row) for row in images.flatten(1).tolist()}


def test_digits_are_split_60_15_25_within_every_class(digits):
    counts = [
        torch.bincount(part.labels) for part in (digits.train, digits.validation, digits.test)
    ]
    total = torch.stack(counts).sum(0)
    assert int(total.sum()) == 1797
    for count, share in zip(counts, (0.60, 0.15, 0.25), strict=True):
        assert ((count / total) - share).abs().max() < 0.006


def test_digits_parts_are_disjoint_and_complete(digits):
    parts = [as_rows(p.images) for p in (digits.train, digits.validation, digits.test)]
    everything = {tuple(row) for row in (load_digits().data * 15).astype(int).tolist()}
    assert len(everything) == 1797
    assert sum(map(len, parts)) == 1797
    assert set.union(*parts) == everything


def test_digits_keep_their_labels(digits):
    bunch = load_digits()
    label_of = {
        tuple(row): label
        for row, label in zip((bunch.data * 15).astype(int).tolist(), bunch.target, strict=True)
    }
    rows = digits.test.images.flatten(1).tolist()
    assert [label_of[tuple(row)] for row in rows] == digits.test.labels.tolist()


def test_digits_are_split_the_same_way_whatever_the_seed(digits):
    torch.manual_seed(1234)
    again = load("digits")
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(again, part).images, getattr(digits, part).images)


def test_a_prefix_of_the_digits_holds_every_class():
    assert len(load("digits", limit=100).train.labels.unique()) == 10


def test_digits_describe_themselves(digits):
    assert (digits.num_classes, digits.in_channels, digits.image_size) == (10, 1, 8)
    assert digits.class_names == tuple("0123456789")
    assert (digits.augment.padding, digits.augment.flip) == (1, False)
    assert load("digits", size=4).image_size == 4


def test_every_data_set_is_described():
    names = ["cifar10", "cifar10-jpeg", "cifar100", "digits", "fashion-mnist", "image-folder"]
    assert list(available()) == [*names, "mnist"]
    assert all(available().values())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "digit",
            {},
            "There is no data set 'digit'. Did you mean 'digits'? Choose one of cifar10,",
        ),
        ("qq", {}, "There is no data set 'qq'. Choose one of cifar10, cifar10-jpeg, cifar100,"),
        (
            "digits",
            {"limits": 3},
            "'digits' has no option 'limits'. Did you mean 'limit'? Its options are size, limit.",
        ),
        ("digits", {"root": "x"}, "got root='x', but its images are embedded in scikit-learn."),
        ("digits", {"limit": 5000}, "limit=5000, but has 1078 training images. Choose 1 to 1078."),
    ],
)
def test_wrong_requests_name_the_value_and_the_cure(name, options, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        load(name, **options)
