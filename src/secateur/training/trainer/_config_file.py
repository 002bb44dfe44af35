"""The config files of runs: read, checked and written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from secateur.training.trainer._config import Config
from secateur.training.trainer._settings_file import check_settings, read_table, write_settings


def read_config(path: Path, overrides: Iterable[str] = ()) -> Config:
    """Read a config file.

    Args:
        path: A TOML file.
        overrides: ``section.name=value`` each, written as in the file; quotes may be left out.

    Returns:
        The settings, checked.

    Raises:
        UsageError: The file cannot be read, or a setting is unknown or wrong.
    """
    return check_config(read_table(path, overrides), where=str(path))


def check_config(table: Mapping[str, Any], *, where: str) -> Config:
    """Check settings.

    Args:
        table: Sections with their settings.
        where: What the settings are called in messages.

    Returns:
        The settings.

    Raises:
        UsageError: A setting is unknown or wrong.
    """
    return check_settings(Config, table, where=where)


def write_config(config: Config) -> str:
    """Write settings as TOML.

    Args:
        config: The settings.

    Returns:
        Text that `read_config` understands; settings that are None are left out.
    """
    return write_settings(config)
