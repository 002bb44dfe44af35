"""Reading config files, changing single settings of them, and writing them down again."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from secateur.errors import UsageError
from secateur.training.trainer._config import (
    Config,
    DataConfig,
    ModelConfig,
    SearchConfig,
    TrainingConfig,
)

Table = dict[str, Any]


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
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(
            f"The config {path} cannot be read ({error.strerror or error}). "
            "Give the path of a TOML file, such as configs/digits.toml."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"The config {path} is not TOML: {error}. Correct that place; "
            "texts stand in quotes, and sections in [brackets]."
        ) from error
    for override in overrides:
        _apply(table, override)
    return check_config(table, where=str(path))


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
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        raise UsageError(" ".join(_sentence(detail, where) for detail in error.errors())) from error


def write_config(config: Config) -> str:
    """Write settings as TOML.

    Args:
        config: The settings.

    Returns:
        Text that `read_config` understands; settings that are None are left out.
    """
    table = config.model_dump(exclude_none=True)
    plain = {name: value for name, value in table.items() if not isinstance(value, dict)}
    lines = [_assignment(name, value) for name, value in plain.items()]
    for section, settings in table.items():
        if isinstance(settings, dict):
            lines += ["", f"[{section}]"]
            lines += [_assignment(name, value) for name, value in settings.items()]
    return "\n".join([*lines, ""])


def _assignment(name: str, value: object) -> str:
    # JSON's texts, numbers, truth values and flat lists are spelled the same in TOML, but for DEL.
    return f"{name} = {json.dumps(value, ensure_ascii=False).replace(chr(127), chr(92) + 'u007f')}"


def _apply(table: Table, override: str) -> None:
    path, equals, text = override.partition("=")
    *sections, name = path.strip().split(".")
    if not equals or not name or len(sections) > 1:
        raise UsageError(
            f"The override {override!r} is not of the form section.name=value. "
            "Write for example training.epochs=10."
        )
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise UsageError(
                f"The override {override!r} takes {section!r} for a section, but the config sets "
                "it to a value. Sections are model, data, training and search."
            )
    table[name] = _value(text.strip())


def _value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _sentence(detail: ErrorDetails, where: str) -> str:
    """Say in words what pydantic found: the field, the value, what is allowed."""
    path = [str(part) for part in detail["loc"]]
    name = ".".join(path) or "The config"
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return f"{name} is missing in {where}; add it."
    if kind == "extra_forbidden":
        return f"{name} in {where} is not a setting.{_known(path)}"
    if kind == "value_error":
        return f"[{name}] in {where}: {context['error']}." if path else f"{where}: {detail['msg']}."
    allowed = _ALLOWED.get(kind, "").format(**context) or detail["msg"]
    return f"{name} is {detail['input']!r} in {where}; allowed is {allowed}."


_ALLOWED = {
    "literal_error": "one of {expected}",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text in quotes",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "a section with settings",
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number less than {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "finite_number": "a finite number",
}


def _known(path: list[str]) -> str:
    model: type[BaseModel] = Config
    for section in path[:-1]:
        model = _SECTIONS.get(section, model)
    names = list(model.model_fields)
    nearest = difflib.get_close_matches(path[-1], names, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    place = f"[{'.'.join(path[:-1])}]" if path[:-1] else "The top of a config"
    return f"{hint} {place} knows {', '.join(names)}."


_SECTIONS: dict[str, type[BaseModel]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "training": TrainingConfig,
    "search": SearchConfig,
}
