"""The .npz of JPEG files: reading, caching, and every way it can be wrong."""

import io
import re

import numpy as np
import pytest
import torch

from secateur.data import load
from secateur.errors import StorageError, UsageError

Image = pytest.importorskip("PIL.Image")

CLASSES = ("cat", "dog", "fox")


def jpeg(pixels, quality=95):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def part(kind, count, seed):
    rng = np.random.default_rng(seed)
    # Smooth pictures survive JPEG compression nearly unchanged.
    colours = rng.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8)
    pixels = np.broadcast_to(colours, (count, 8, 8, 3))
    files = [jpeg(np.ascontiguousarray(picture)) for picture in pixels]
    arrays = {
        f"{kind}_jpeg": np.frombuffer(b"".join(files), np.uint8),
        f"{kind}_offsets": np.cumsum([0, *map(len, files)]).astype(np.int64),
        f"{kind}_labels": (np.arange(count) % 3).astype(np.uint8),
    }
    return arrays, pixels


@pytest.fixture
def arrays():
    train, _ = part("train", 10, 0)
    test, _ = part("test", 4, 1)
    return train | test | {"classes": np.array(CLASSES)}


@pytest.fixture
def archive(tmp_path, arrays):
    path = tmp_path / "pictures.npz"
    np.savez(path, **arrays)
    return path


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def test_pictures_labels_and_parts(archive, cache):
    data = load("cifar10-jpeg", archive, validation=3, cache=cache)
    pixels = torch.from_numpy(part("train", 10, 0)[1].copy()).permute(0, 3, 1, 2)
    assert (data.train.images.int() - pixels[:7].int()).abs().max() <= 3
    assert (data.validation.images.int() - pixels[7:].int()).abs().max() <= 3
    assert data.train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert data.validation.labels.tolist() == [1, 2, 0]
    assert data.test.labels.tolist() == [0, 1, 2, 0]
    assert data.class_names == CLASSES
    assert (data.in_channels, data.image_size, data.augment.flip) == (3, 8, True)


def test_pictures_are_not_turned(archive, arrays, cache):
    """Oracle: Pillow's own pixels, read one by one."""
    slope = np.arange(0, 96, 12, dtype=np.uint8)
    picture = np.stack(np.broadcast_arrays(slope[:, None], 200 - slope[None], np.uint8(9)), axis=2)
    files = [jpeg(picture)] * 4
    changed = {
        "test_jpeg": np.frombuffer(b"".join(files), np.uint8),
        "test_offsets": np.cumsum([0, *map(len, files)]),
    }
    np.savez(archive, **(arrays | changed))
    image = load("cifar10-jpeg", archive, validation=3, cache=cache).test.images[0]
    theirs = Image.open(io.BytesIO(files[0]))
    for row in range(8):
        for column in range(8):
            assert tuple(image[:, row, column].tolist()) == theirs.getpixel((column, row))


def test_images_are_decoded_once(archive, cache):
    calls = []

    def progress(done, total):
        calls.append((done, total))

    first = load("cifar10-jpeg", archive, validation=3, cache=cache, progress=progress)
    assert calls == [(10, 10), (4, 4)]
    second = load("cifar10-jpeg", archive, validation=3, cache=cache, progress=progress)
    assert len(calls) == 2
    assert torch.equal(first.train.images, second.train.images)
    assert sorted(file.suffix for file in cache.iterdir()) == [".npy", ".npy"]


def test_another_file_is_decoded_anew(archive, arrays, cache):
    load("cifar10-jpeg", archive, validation=3, cache=cache)
    other, _ = part("train", 10, 7)
    np.savez(archive, **(arrays | other))
    load("cifar10-jpeg", archive, validation=3, cache=cache)
    assert len(list(cache.iterdir())) == 4


@pytest.mark.parametrize("damage", [lambda c: c[:100], lambda c: b"", lambda c: b"x" * 300])
def test_a_damaged_cache_file_is_replaced(archive, cache, damage):
    first = load("cifar10-jpeg", archive, validation=3, cache=cache)
    intact = {file: file.read_bytes() for file in cache.iterdir()}
    for file, content in intact.items():
        file.write_bytes(damage(content))
    second = load("cifar10-jpeg", archive, validation=3, cache=cache)
    assert torch.equal(first.train.images, second.train.images)
    assert {file: file.read_bytes() for file in cache.iterdir()} == intact


def test_a_foreign_cache_file_is_replaced(archive, cache):
    first = load("cifar10-jpeg", archive, validation=3, cache=cache)
    for file in cache.iterdir():
        np.save(file, np.load(file)[:2])
    second = load("cifar10-jpeg", archive, validation=3, cache=cache)
    assert torch.equal(first.train.images, second.train.images)


def test_a_cache_file_is_replaced_whole(archive, cache):
    """Who reads the old file meanwhile reads the old file to its end."""
    load("cifar10-jpeg", archive, validation=3, cache=cache)
    file = min(cache.iterdir())
    file.write_bytes(b"old" * 10)
    with file.open("rb") as reader:
        load("cifar10-jpeg", archive, validation=3, cache=cache)
        assert reader.read() == b"old" * 10
    assert np.load(file).shape[1:] == (3, 8, 8)


def test_an_interrupted_write_leaves_nothing_behind(archive, cache, monkeypatch):
    def full_disk(file, array, **_):
        file.write(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    assert len(load("cifar10-jpeg", archive, validation=3, cache=cache).train) == 7
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_done_without(archive, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    assert len(load("cifar10-jpeg", archive, validation=3, cache=blocked / "x").train) == 7


def test_the_cache_folder_follows_the_environment(archive, tmp_path, monkeypatch):
    monkeypatch.delenv("SECATEUR_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load("cifar10-jpeg", archive, validation=3)
    assert len(list((tmp_path / "xdg" / "secateur").iterdir())) == 2
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path / "own"))
    load("cifar10-jpeg", archive, validation=3)
    assert len(list((tmp_path / "own").iterdir())) == 2


def test_size_and_limit(archive, cache):
    data = load("cifar10-jpeg", archive, validation=3, cache=cache, size=4, limit=5)
    assert (len(data.train), data.image_size) == (5, 4)
    assert data.test.images.shape == (4, 3, 4, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"classes": None},
            "has no array 'classes'; it holds test_jpeg, test_labels, test_offsets",
        ),
        ({"test_labels": None}, "has no array 'test_labels'; it holds classes, test_jpeg"),
        (
            {"train_labels": np.zeros((10, 1), np.uint8)},
            "array 'train_labels' has dtype uint8 and shape (10, 1), but must be uint8 with",
        ),
        (
            {"train_jpeg": np.zeros(10, np.float32)},
            "array 'train_jpeg' has dtype float32 and shape (10,), but must be uint8 with one axis",
        ),
        (
            {"train_labels": np.zeros(9, np.uint8)},
            "(train) has 9 labels and 11 offsets. There must be at least one label, and one offset",
        ),
        (
            {"test_labels": np.array([0, 1, 3, 0], np.uint8)},
            "(test) has label 3, but there are 3 classes, so labels must lie in 0..2.",
        ),
        (
            {"test_offsets": np.array([0, 5, 3, 9, 12])},
            "(test) has offsets that do not cut its",
        ),
        (
            {"test_offsets": np.array([-4, 5, 8, 9, 12])},
            "(test) has offsets that do not cut its",
        ),
        (
            {"test_jpeg": np.zeros(5, np.uint8)},
            "(test) has offsets that do not cut its 5 bytes into files: they must rise from 0",
        ),
    ],
)
def test_wrong_arrays_are_named(archive, arrays, cache, changes, message):
    changed = {k: v for k, v in (arrays | changes).items() if v is not None}
    np.savez(archive, **changed)
    with pytest.raises(StorageError, match=re.escape(message)):
        load("cifar10-jpeg", archive, validation=3, cache=cache)
    assert not cache.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c[: len(c) // 2],
        lambda c: b"",
        lambda c: b"no zip",
        lambda c: b"\x80\x04N.",
        lambda c: c[:200] + bytes(b ^ 0xFF for b in c[200:260]) + c[260:],
    ],
)
def test_a_damaged_file_is_refused(archive, cache, damage):
    archive.write_bytes(damage(archive.read_bytes()))
    message = f"{archive} could not be read: "
    with pytest.raises(StorageError, match=re.escape(message)):
        load("cifar10-jpeg", archive, validation=3, cache=cache)


def test_a_bare_array_is_refused(tmp_path, cache):
    path = tmp_path / "bare.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(
        StorageError, match=r"could not be read: .* It must be a complete \.npz file"
    ):
        load("cifar10-jpeg", path, cache=cache)


def test_pickled_objects_are_never_loaded(archive, arrays, cache):
    np.savez(archive, **(arrays | {"classes": np.array(list(CLASSES), dtype=object)}))
    with pytest.raises(StorageError, match="could not be read: Object arrays cannot be loaded"):
        load("cifar10-jpeg", archive, validation=3, cache=cache)


def test_a_damaged_picture_is_named(archive, arrays, cache):
    content = arrays["test_jpeg"].copy()
    content[arrays["test_offsets"][2] :][:20] = 0
    np.savez(archive, **(arrays | {"test_jpeg": content}))
    message = f"{archive} (test): image 2 could not be decoded: "
    with pytest.raises(StorageError, match=re.escape(message)):
        load("cifar10-jpeg", archive, validation=3, cache=cache)


def test_a_truncated_picture_is_named(archive, arrays, cache):
    last = arrays["test_offsets"][3]
    offsets = arrays["test_offsets"].copy()
    offsets[4] = last + 300
    changed = {"test_jpeg": arrays["test_jpeg"][: last + 300], "test_offsets": offsets}
    np.savez(archive, **(arrays | changed))
    with pytest.raises(StorageError, match=r"\(test\): image 3 could not be decoded: "):
        load("cifar10-jpeg", archive, validation=3, cache=cache)


def test_pictures_of_two_sizes_are_refused(archive, arrays, cache):
    files = [jpeg(np.zeros((side, 8, 3), np.uint8)) for side in (8, 9, 8, 8)]
    changed = {
        "test_jpeg": np.frombuffer(b"".join(files), np.uint8),
        "test_offsets": np.cumsum([0, *map(len, files)]),
    }
    np.savez(archive, **(arrays | changed))
    message = "(test): image 1 has 9 x 8 pixels, image 0 has 8 x 8. All must have one size"
    with pytest.raises(StorageError, match=re.escape(message)):
        load("cifar10-jpeg", archive, validation=3, cache=cache)


def test_a_missing_file_and_a_missing_root_are_told(tmp_path):
    path = tmp_path / "nowhere.npz"
    with pytest.raises(StorageError, match=re.escape(f"{path} does not exist. Data set")):
        load("cifar10-jpeg", path)
    with pytest.raises(UsageError, match=r"got no root, but needs the path of its \.npz file"):
        load("cifar10-jpeg")
