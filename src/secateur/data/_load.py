"""Data sets by name."""

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from secateur.data._cifar import load_cifar10, load_cifar100
from secateur.data._dataset import Dataset
from secateur.data._digits import load_digits
from secateur.data._idx import load_fashion_mnist, load_mnist
from secateur.data._image_folder import load_image_folder
from secateur.data._jpeg_archive import load_jpeg_archive
from secateur.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One data set that can be loaded by name.

    Attributes:
        name: what the user types.
        summary: one line for lists and help texts.
        loader: called with the root; its keyword parameters are the options of the data set.
    """

    name: str
    summary: str
    loader: Callable[..., Dataset]

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options that the loader takes."""
        parameters = inspect.signature(self.loader).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="digits",
            summary="1,797 handwritten digits of 8x8 pixels, embedded in scikit-learn",
            loader=load_digits,
        ),
        Source(name="mnist", summary="MNIST, 28x28 handwritten digits", loader=load_mnist),
        Source(
            name="fashion-mnist",
            summary="Fashion-MNIST, 28x28 pictures of clothes",
            loader=load_fashion_mnist,
        ),
        Source(name="cifar10", summary="CIFAR-10, 32x32 photographs", loader=load_cifar10),
        Source(name="cifar100", summary="CIFAR-100, 32x32 photographs", loader=load_cifar100),
        Source(
            name="cifar10-jpeg",
            summary="CIFAR-10 (JPEG): one .npz file of JPEG images",
            loader=load_jpeg_archive,
        ),
        Source(
            name="image-folder",
            summary="folders of images, one per class, decoded when needed",
            loader=load_image_folder,
        ),
    )
}


def load(name: str, root: str | Path | None = None, **options: object) -> Dataset:
    """Load a data set in three parts.

    Args:
        name: one of `available`.
        root: the folder (or the file, for ``cifar10-jpeg``) that holds the data. None means the
            folder ``data`` in the working directory; ``digits`` needs none.
        **options: what this data set offers: ``size`` (average-pool to so many pixels), ``limit``
            (number of training images), ``validation`` (number of validation images cut from the
            training images), ``download``, ``progress`` and others; see the loaders.

    Returns:
        The data set.

    Raises:
        UsageError: the name or an option is unknown or out of range.
        StorageError: a file is missing or damaged.

    Example:
        >>> digits = load("digits")
        >>> len(digits.train), len(digits.validation), len(digits.test)
        (1078, 269, 450)
    """
    if name not in SOURCES:
        raise UsageError(
            f"There is no data set {name!r}.{_nearest(name, list(SOURCES))} "
            f"Choose one of {', '.join(sorted(SOURCES))}."
        )
    source = SOURCES[name]
    for option in options:
        if option not in source.options:
            raise UsageError(
                f"Data set {name!r} has no option {option!r}."
                f"{_nearest(option, source.options)} "
                f"Its options are {', '.join(source.options)}."
            )
    return source.loader(None if root is None else Path(root), **options)


def available() -> dict[str, str]:
    """List the data sets that `load` knows.

    Returns:
        One line of description per name, sorted by name.
    """
    return {name: SOURCES[name].summary for name in sorted(SOURCES)}


def _nearest(name: str, names: tuple[str, ...] | list[str]) -> str:
    matches = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f" Did you mean {matches[0]!r}?" if matches else ""
