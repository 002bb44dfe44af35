"""CIFAR through torchvision."""

import importlib
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from secateur.data import load
from secateur.errors import StorageError, UsageError

datasets = pytest.importorskip("torchvision.datasets")


@pytest.mark.parametrize(
    ("name", "folder"), [("cifar10", "cifar-10-batches-py"), ("cifar100", "cifar-100-python")]
)
def test_missing_files_are_told_with_their_place(tmp_path, name, folder):
    message = (
        f"{name.upper()} was not found, or is damaged, in {tmp_path / folder}. The unpacked files "
        "of the Python version must lie there. Download them with download=true, or set root"
    )
    with pytest.raises(StorageError, match=re.escape(message)):
        load(name, tmp_path)


def test_a_foreign_pickle_is_never_opened(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name, _ in datasets.CIFAR10.train_list + datasets.CIFAR10.test_list:
        (folder / name).write_bytes(b"cos\nabort\n(tR.")  # os.abort(), were it unpickled
    with pytest.raises(StorageError, match="CIFAR10 was not found, or is damaged"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_the_last_images_become_the_validation_part(tmp_path, monkeypatch, name, classes):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    asked = []

    def reader(root, *, train, download):
        asked.append((root, train, download))
        kept = pixels if train else pixels[:6]
        labels = [n % classes for n in range(len(kept))]
        return SimpleNamespace(data=kept, targets=labels, classes=[f"c{n}" for n in range(classes)])

    monkeypatch.setattr(datasets, name.upper(), reader)
    cifar = load(name, tmp_path, validation=7, download=True)
    assert asked == [(tmp_path, True, True), (tmp_path, False, True)]
    expected = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    assert torch.equal(cifar.train.images, expected[:13])
    assert torch.equal(cifar.validation.images, expected[13:])
    assert torch.equal(cifar.test.images, expected[:6])
    assert cifar.validation.labels.tolist() == [n % classes for n in range(13, 20)]
    assert (cifar.num_classes, cifar.class_names[1]) == (classes, "c1")
    assert (cifar.augment.padding, cifar.augment.flip) == (4, True)


def test_missing_torchvision_names_the_extra(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name="torchvision")

    monkeypatch.setattr(importlib, "import_module", absent)
    message = (
        "'cifar10' needs the package torchvision, which is not installed. Install it with: pip"
    )
    with pytest.raises(UsageError, match=re.escape(message)):
        load("cifar10")
