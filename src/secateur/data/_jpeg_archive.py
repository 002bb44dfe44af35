"""CIFAR-10 (JPEG) and its like: labelled JPEG files, one after another, in one .npz file.

For each part, ``train`` and ``test``, the file holds ``PART_jpeg``, all JPEG files as uint8;
``PART_offsets``, int64, file i is bytes offsets[i]:offsets[i+1]; and ``PART_labels``, uint8.
Once it holds ``classes``, the names.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from secateur.data._cache import cache_folder, cached_images
from secateur.data._dataset import Dataset, Split, in_memory_dataset, split_off_validation
from secateur.data._pillow import decode_rgb
from secateur.errors import StorageError, UsageError

NAME = "cifar10-jpeg"
VALIDATION_IMAGES = 5000

# Called now and then with the number of images decoded and the number of all.
Progress = Callable[[int, int], None]
PROGRESS_EVERY = 1000

# The arrays of a file and their kinds.
ARRAYS = {
    "train_jpeg": "uint8",
    "train_offsets": "int64",
    "train_labels": "uint8",
    "test_jpeg": "uint8",
    "test_offsets": "int64",
    "test_labels": "uint8",
    "classes": "str",
}

# What numpy and zipfile raise on files that are truncated, foreign or lie about their sizes.
DAMAGES = (
    OSError,
    ValueError,
    EOFError,
    TypeError,
    MemoryError,
    RuntimeError,
    zlib.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class JpegPart:
    """The JPEG files of one part.

    Attributes:
        place: the file and part, for messages.
        jpeg: all files one after another, uint8.
        offsets: where each file starts and the last ends, int64, one more than files.
        labels: class indices.
    """

    place: str
    jpeg: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def load_jpeg_archive(
    root: Path | None,
    *,
    validation: int = VALIDATION_IMAGES,
    size: int | None = None,
    limit: int | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load a .npz file of JPEG images; they are decoded once and kept in the cache folder.

    Args:
        root: the .npz file.
        validation: how many of the last training files become the validation part.
        size: average-pool to this many pixels; it must divide the size of the images.
        limit: keep so many training images.
        cache: folder of the decoded images; None means the user's cache folder.
        progress: called with (decoded, all) every 1,000 images; not called when the cache is used.

    Returns:
        The data set.

    Raises:
        UsageError: no file is given, or an option is out of range.
        StorageError: the file is missing, damaged or something else.
    """
    if root is None:
        raise UsageError(
            f"Data set {NAME!r} got no root, but needs the path of its .npz file. "
            "Set root to that file."
        )
    (train, test), classes, digest = read_archive(root)
    folder = cache_folder() if cache is None else Path(cache)
    decoded = [
        _split(part, folder / f"{NAME}-{digest}-{kind}-v1.npy", progress)
        for kind, part in (("train", train), ("test", test))
    ]
    fitted, held_out = split_off_validation(decoded[0], validation, NAME)
    return in_memory_dataset(
        NAME,
        train=fitted,
        validation=held_out,
        test=decoded[1],
        class_names=classes,
        flip=True,
        size=size,
        limit=limit,
    )


def read_archive(path: Path) -> tuple[tuple[JpegPart, JpegPart], tuple[str, ...], str]:
    """Read a .npz file of JPEG images and check all of it but the images.

    Args:
        path: the file.

    Returns:
        Train and test part, the names of the classes, and the start of the file's SHA-256 sum.

    Raises:
        StorageError: the file is missing, damaged or something else.
    """
    content, arrays = _read_arrays(path)
    for name, kind in ARRAYS.items():
        _check_array(path, arrays, name, kind)
    names = arrays["classes"]
    train, test = (_part(path, arrays, kind) for kind in ("train", "test"))
    return (train, test), tuple(map(str, names)), hashlib.sha256(content).hexdigest()[:16]


def decode(part: JpegPart, progress: Progress | None) -> np.ndarray:
    """Decode every JPEG file of a part.

    Args:
        part: the files; all images must have the size of the first.
        progress: called with (decoded, all) now and then.

    Returns:
        uint8, shape ``[N, 3, H, W]``.

    Raises:
        StorageError: a file is damaged or of another size.
    """
    images: np.ndarray | None = None
    for number in range(len(part)):
        pixels = _pixels(part, number)
        if images is None:
            images = np.empty((len(part), 3, *pixels.shape[:2]), np.uint8)
        if pixels.shape[:2] != images.shape[2:]:
            raise StorageError(
                f"{part.place}: image {number} has {pixels.shape[0]} x {pixels.shape[1]} pixels, "
                f"image 0 has {images.shape[2]} x {images.shape[3]}. All must have one size; make "
                "the file again."
            )
        images[number] = pixels.transpose(2, 0, 1)
        if progress is not None and ((number + 1) % PROGRESS_EVERY == 0 or number + 1 == len(part)):
            progress(number + 1, len(part))
    assert images is not None
    return images


def _pixels(part: JpegPart, number: int) -> np.ndarray:
    file = part.jpeg[part.offsets[number] : part.offsets[number + 1]].tobytes()
    return np.asarray(decode_rgb(file, f"{part.place}: image {number}", NAME))


def _split(part: JpegPart, cache_file: Path, progress: Progress | None) -> Split:
    images = cached_images(cache_file, len(part), lambda: decode(part, progress))
    labels = torch.from_numpy(part.labels.astype(np.int64))
    return Split(images=torch.from_numpy(images), labels=labels)


def _read_arrays(path: Path) -> tuple[bytes, dict[str, np.ndarray]]:
    try:
        content = path.read_bytes()
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return content, {name: archive[name] for name in archive}
    except FileNotFoundError as error:
        raise StorageError(
            f"{path} does not exist. Data set {NAME!r} is one .npz file of JPEG images. "
            "Set root to that file."
        ) from error
    except DAMAGES as error:
        raise StorageError(
            f"{path} could not be read: {error}. It must be a complete .npz file of plain arrays. "
            "Fetch the file again."
        ) from error


def _check_array(path: Path, arrays: dict[str, np.ndarray], name: str, kind: str) -> None:
    if name not in arrays:
        raise StorageError(
            f"{path} has no array {name!r}; it holds {', '.join(sorted(arrays)) or 'nothing'}. "
            f"Data set {NAME!r} needs {', '.join(ARRAYS)}. Make the file again."
        )
    array = arrays[name]
    if not np.issubdtype(array.dtype, kind) or array.ndim != 1:
        raise StorageError(
            f"{path}: array {name!r} has dtype {array.dtype} and shape {array.shape}, but must be "
            f"{kind} with one axis. Make the file again."
        )


def _part(path: Path, arrays: dict[str, np.ndarray], kind: str) -> JpegPart:
    part = JpegPart(
        place=f"{path} ({kind})",
        jpeg=arrays[f"{kind}_jpeg"],
        offsets=arrays[f"{kind}_offsets"],
        labels=arrays[f"{kind}_labels"],
    )
    classes = len(arrays["classes"])
    if len(part) == 0 or len(part.offsets) != len(part) + 1:
        raise StorageError(
            f"{part.place} has {len(part)} labels and {len(part.offsets)} offsets. There must be "
            "at least one label, and one offset more than labels; make the file again."
        )
    offsets = part.offsets
    if offsets[0] != 0 or offsets[-1] != len(part.jpeg) or np.any(offsets[1:] <= offsets[:-1]):
        raise StorageError(
            f"{part.place} has offsets that do not cut its {len(part.jpeg)} bytes into files: they "
            "must rise from 0 to the number of bytes. The file is damaged; fetch it again."
        )
    if part.labels.max() >= classes:
        raise StorageError(
            f"{part.place} has label {part.labels.max()}, but there are {classes} classes, so "
            f"labels must lie in 0..{classes - 1}. The file is damaged; fetch it again."
        )
    return part
