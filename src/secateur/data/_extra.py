"""Packages of the extra ``vision``, imported when a data set needs them."""

import importlib
from types import ModuleType

from secateur.errors import UsageError


def import_extra(module: str, needed_by: str) -> ModuleType:
    """Import a module of the extra ``vision``.

    Args:
        module: its full name.
        needed_by: the data set that needs it, for the message.

    Returns:
        The module.

    Raises:
        UsageError: its package is not installed.
        ModuleNotFoundError: the package is installed, but something that it needs is not.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise UsageError(
            f"Data set {needed_by!r} needs the package {package}, which is not installed. "
            "Install it with: pip install '.[vision]' in a clone of secateur."
        ) from error
