"""MNIST and Fashion-MNIST from idx files written by hand."""

import gzip
import re
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from secateur.data import load
from secateur.errors import StorageError, UsageError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


def idx(array):
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def files():
    rng = np.random.default_rng(0)
    contents = {}
    for prefix, count in (("train", 12), ("t10k", 5)):
        contents[f"{prefix}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28))
        contents[f"{prefix}-labels-idx1-ubyte"] = np.arange(count) % 10
    return contents


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in files.items():
        (folder / name).write_bytes(idx(array))


def check(dataset, files):
    images = torch.from_numpy(files["train-images-idx3-ubyte"])
    assert torch.equal(dataset.train.images[:, 0].long(), images[:8])
    assert torch.equal(dataset.validation.images[:, 0].long(), images[8:])
    assert dataset.validation.labels.tolist() == [8, 9, 0, 1]
    assert dataset.test.labels.tolist() == [0, 1, 2, 3, 4]
    assert (dataset.in_channels, dataset.image_size, dataset.num_classes) == (1, 28, 10)


def test_files_in_the_root(tmp_path, files):
    write(tmp_path, files)
    mnist = load("mnist", tmp_path, validation=4)
    check(mnist, files)
    assert not mnist.augment.flip
    assert mnist.augment.padding == 3


def test_files_where_torchvision_puts_them(tmp_path, files):
    write(tmp_path / "FashionMNIST" / "raw", files)
    fashion = load("fashion-mnist", tmp_path, validation=4)
    check(fashion, files)
    assert fashion.augment.flip
    assert fashion.class_names[0] == "t-shirt/top"


def test_packed_files(tmp_path, files):
    for name, array in files.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    check(load("mnist", str(tmp_path), validation=4), files)


def test_equals_torchvisions_reading(tmp_path, files):
    datasets = pytest.importorskip("torchvision.datasets")
    write(tmp_path / "MNIST" / "raw", files)
    theirs = datasets.MNIST(tmp_path, train=True)
    ours = load("mnist", tmp_path, validation=4)
    assert torch.equal(ours.train.images[:, 0], theirs.data[:8])
    assert torch.equal(ours.train.labels, theirs.targets[:8])


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_debians_copy_of_fashion_mnist():
    fashion = load("fashion-mnist", DEBIAN)
    assert (len(fashion.train), len(fashion.validation), len(fashion.test)) == (
        55_000,
        5_000,
        10_000,
    )
    assert torch.bincount(fashion.test.labels).tolist() == [1000] * 10
    # Published for all 60,000 training images: 0.2860 and 0.3530.
    assert fashion.mean[0] == pytest.approx(0.2860, abs=0.001)
    assert fashion.std[0] == pytest.approx(0.3530, abs=0.001)


def test_a_missing_file_is_named_with_the_places(tmp_path, files):
    del files["t10k-labels-idx1-ubyte"]
    write(tmp_path, files)
    message = (
        f"MNIST needs the file t10k-labels-idx1-ubyte (or t10k-labels-idx1-ubyte.gz), which is "
        f"neither in {tmp_path} nor in {tmp_path / 'MNIST' / 'raw'}. Set root to the folder"
    )
    with pytest.raises(StorageError, match=re.escape(message)):
        load("mnist", tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c[:-1], "holds 9407 values, but its header promises 12 x 28 x 28. The file is"),
        (lambda c: c + b"x", "holds 9409 values, but its header promises 12 x 28 x 28."),
        (lambda c: c[:6], "holds 6 bytes, too few for the header of an idx file with 3 axes."),
        (lambda c: b"", "holds 0 bytes, too few for the header"),
        (lambda c: b"<htm" + c[4:], "starts with bytes 3c 68 74 6d, but an idx file"),
        (
            lambda c: c[:4] + b"\xff" * 12 + c[16:],
            "holds 9408 values, but its header promises 4294967295 x",
        ),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, files, damage, message):
    write(tmp_path, files)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StorageError, match=re.escape(f"{path} {message}")):
        load("mnist", tmp_path, validation=4)


@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"no gzip at all"])
def test_a_damaged_gzip_file_is_refused(tmp_path, files, damage):
    for name, array in files.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(StorageError, match=re.escape(f"{path} could not be unpacked: ")):
        load("mnist", tmp_path, validation=4)


def test_files_that_do_not_belong_together_are_refused(tmp_path, files):
    files["train-labels-idx1-ubyte"] = np.arange(11) % 10
    write(tmp_path, files)
    with pytest.raises(StorageError, match=r"holds 12 images and .* 11 labels, which must be"):
        load("mnist", tmp_path, validation=4)


def test_a_label_without_a_class_is_refused(tmp_path, files):
    files["train-labels-idx1-ubyte"][3] = 77
    write(tmp_path, files)
    with pytest.raises(UsageError, match="has label 77, but there are 10 classes, so labels must"):
        load("mnist", tmp_path, validation=4)


@pytest.mark.parametrize("validation", [0, 12, 5000])
def test_an_impossible_validation_part_is_refused(tmp_path, files, validation):
    write(tmp_path, files)
    message = f"validation={validation}, but has 12 images to share between train and validation."
    with pytest.raises(UsageError, match=re.escape(message)):
        load("mnist", tmp_path, validation=validation)
