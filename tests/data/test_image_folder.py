"""Folders of images, decoded when a batch needs them."""

import re

import numpy as np
import pytest
import torch

from secateur.data import Batches, FolderImages, load
from secateur.errors import StorageError, UsageError

Image = pytest.importorskip("PIL.Image")
pytest.importorskip("torchvision")


def fill(folder, count, side=(20, 14)):
    for number, name in enumerate(("ant", "bee")):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            colour = (10 * i, 100 * number, 50)
            Image.new("RGB", side, colour).save(folder / name / f"{i:02}.png")


@pytest.fixture
def root(tmp_path):
    fill(tmp_path / "train", 10)
    fill(tmp_path / "val", 3)
    fill(tmp_path / "test", 2)
    return tmp_path


def test_three_folders_are_the_three_parts(root):
    data = load("image-folder", root, size=8)
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 6, 4)
    assert data.class_names == ("ant", "bee")
    assert (data.in_channels, data.image_size) == (3, 8)
    images = data.train.images[torch.arange(20)]
    assert images.shape == (20, 3, 8, 8)
    # Green tells the class; red tells that every picture is there once.
    assert torch.equal(images[:, 1, 0, 0] == 100, data.train.labels == 1)
    assert sorted(images[:, 0, 4, 4].tolist()) == sorted([10 * i for i in range(10)] * 2)


def test_without_test_the_validation_part_is_cut_from_train(tmp_path):
    fill(tmp_path / "train", 10)
    fill(tmp_path / "val", 3)
    data = load("image-folder", tmp_path, size=8, validation_share=0.2)
    assert (len(data.train), len(data.validation), len(data.test)) == (16, 4, 6)
    files = set(data.train.images.files) | set(data.validation.images.files)
    assert len(files) == 20
    assert (
        data.train.images.files
        == load("image-folder", tmp_path, validation_share=0.2).train.images.files
    )


def test_without_val_the_validation_part_is_cut_from_train(tmp_path):
    fill(tmp_path / "train", 10)
    fill(tmp_path / "test", 3)
    data = load("image-folder", tmp_path, size=8)
    assert (len(data.train), len(data.validation), len(data.test)) == (18, 2, 6)


def test_batches_decode_only_what_they_need(root):
    data = load("image-folder", root, size=8)
    files = data.train.images.files
    files[0].write_bytes(b"damaged")
    batches = iter(Batches(data, "train", 19, augment=None))
    with pytest.raises(StorageError, match="could not be decoded"):
        next(batches)
    files[0].unlink()
    assert data.train.images[torch.arange(1, 4)].shape == (3, 3, 8, 8)


def test_batches_are_augmented_and_normalised(root):
    data = load("image-folder", root, size=8, limit=12)
    batches = Batches(
        data, "train", 5, augment=data.augment, generator=torch.Generator().manual_seed(0)
    )
    sizes = [(tuple(images.shape), len(labels)) for images, labels in batches]
    assert sizes == [((5, 3, 8, 8), 5), ((5, 3, 8, 8), 5), ((2, 3, 8, 8), 2)]
    images, _ = next(iter(Batches(data, "test", 1)))
    assert images[0, 2, 4, 4].item() == pytest.approx((50 / 255 - 0.406) / 0.225)


@pytest.mark.parametrize(("width", "height"), [(70, 35), (35, 70), (40, 40), (5, 9)])
def test_the_middle_is_kept_without_distortion(tmp_path, width, height):
    """A bright square in the middle stays square and central."""
    pixels = np.zeros((height, width, 3), np.uint8)
    side = min(width, height) // 5 or 1
    top, left = (height - side) // 2, (width - side) // 2
    pixels[top : top + side, left : left + side] = 255
    path = tmp_path / "x.png"
    Image.fromarray(pixels).save(path)
    image = FolderImages(files=(path,), size=35)[torch.tensor([0])][0, 0].double()
    grid = torch.arange(35.0).double()
    mass = image.sum()
    row, column = (image.sum(1) * grid).sum() / mass, (image.sum(0) * grid).sum() / mass
    assert abs(row.item() - 17) <= 1
    assert abs(column.item() - 17) <= 1
    assert image.sum(0).count_nonzero() == pytest.approx(image.sum(1).count_nonzero(), abs=2)


def test_grey_and_transparent_images_become_rgb(tmp_path):
    for mode, name in (("L", "a.png"), ("RGBA", "b.png"), ("P", "c.png")):
        Image.new(mode, (9, 9)).save(tmp_path / name)
    images = FolderImages(files=tuple(sorted(tmp_path.iterdir())), size=4)
    assert images[torch.arange(3)].shape == (3, 3, 4, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 21}, "limit=21, but has 20 training images. Choose 1 to 20."),
        ({"size": 0}, "size=0, which must be at least 1."),
    ],
)
def test_wrong_options_name_the_value_and_the_cure(root, options, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        load("image-folder", root, **options)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5])
def test_an_impossible_validation_share_is_refused(tmp_path, share):
    fill(tmp_path / "train", 3)
    fill(tmp_path / "val", 1)
    with pytest.raises(UsageError, match=re.escape(f"validation_share={share}, which leaves")):
        load("image-folder", tmp_path, validation_share=share)


def test_missing_and_differing_folders_are_told(tmp_path):
    message = f"{tmp_path / 'train'} is missing or holds a class without images: "
    with pytest.raises(StorageError, match=re.escape(message)):
        load("image-folder", tmp_path)
    fill(tmp_path / "train", 3)
    fill(tmp_path / "val", 1)
    (tmp_path / "val" / "bee").rename(tmp_path / "val" / "wasp")
    message = "has other classes than the training folder; the difference is bee, wasp. Every part"
    with pytest.raises(StorageError, match=re.escape(message)):
        load("image-folder", tmp_path)
