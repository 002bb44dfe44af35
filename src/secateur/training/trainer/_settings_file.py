"""Settings in TOML: reading them, changing single ones, checking them, and writing them down."""

from __future__ import annotations

import difflib
import json
import tomllib
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic_core import ErrorDetails

from secateur.errors import UsageError

Table = dict[str, Any]
Settings = TypeVar("Settings", bound=BaseModel)


def read_table(path: Path, overrides: Iterable[str] = ()) -> Table:
    """Read a TOML file.

    Args:
        path: The file.
        overrides: ``section.name=value`` each, written as in the file; quotes may be left out.

    Returns:
        What stands in it, not checked yet.

    Raises:
        UsageError: The file cannot be read, or an override is malformed.
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
    return table


def check_settings(
    kind: type[Settings], table: Mapping[str, Any], *, where: str, file: str = "a config"
) -> Settings:
    """Check settings.

    Args:
        kind: What is expected.
        table: Sections with their settings.
        where: What the settings are called in messages.
        file: What a file of this kind is called.

    Returns:
        The settings.

    Raises:
        UsageError: A setting is unknown or wrong; every one is told.
    """
    try:
        return kind.model_validate(table)
    except ValidationError as error:
        told = (_sentence(kind, detail, where, file) for detail in error.errors())
        raise UsageError(" ".join(told)) from error


def write_settings(settings: BaseModel, *, leave_out: Mapping[str, set[str]] | None = None) -> str:
    """Write settings as TOML.

    Args:
        settings: What to write.
        leave_out: Section to names that are not written.

    Returns:
        Text that `read_table` understands; settings that are None are left out.
    """
    table = settings.model_dump(exclude_none=True)
    for section, names in (leave_out or {}).items():
        table[section] = {n: value for n, value in table[section].items() if n not in names}
    lines = _lines(table, [])
    return "\n".join([*lines, ""]).lstrip("\n")


def _lines(table: Table, sections: list[str]) -> list[str]:
    plain = {name: value for name, value in table.items() if not isinstance(value, dict)}
    head = ["", f"[{'.'.join(map(_key, sections))}]"] if sections and plain else []
    lines = head + [_assignment(name, value) for name, value in plain.items()]
    for name, value in table.items():
        if isinstance(value, dict):
            lines += _lines(value, [*sections, name])
    return lines


def _assignment(name: str, value: object) -> str:
    return f"{name} = {_json(value)}"


def _key(name: str) -> str:
    is_bare = name.isascii() and name.replace("-", "x").replace("_", "x").isalnum()
    return name if is_bare else _json(name)


def _json(value: object) -> str:
    # JSON's texts, numbers, truth values and flat lists are spelled the same in TOML, but for DEL.
    return json.dumps(value, ensure_ascii=False).replace(chr(127), chr(92) + "u007f")


def _apply(table: Table, override: str) -> None:
    path, equals, text = override.partition("=")
    *sections, name = path.strip().split(".")
    if not equals or not all([*sections, name]):
        raise UsageError(
            f"The override {override!r} is not of the form section.name=value. "
            "Write for example training.epochs=10."
        )
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise UsageError(
                f"The override {override!r} takes {section!r} for a section, but the config sets "
                "it to a value. Sections are those in [brackets], such as model, data and training."
            )
    table[name] = _value(text.strip())


def _value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _sentence(root: type[BaseModel], detail: ErrorDetails, where: str, file: str) -> str:
    """Say in words what pydantic found: the field, the value, what is allowed."""
    path, _ = _walk(root, detail["loc"])
    name = ".".join(path) or "The config"
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "missing":
        return f"{name} is missing in {where}; add it."
    if kind == "union_tag_not_found":
        return f"{name}.{_selector(context)} is missing in {where}; add it."
    if kind == "extra_forbidden":
        return f"{name} in {where} is not a setting.{_known(root, detail['loc'], file)}"
    if kind == "value_error":
        return f"[{name}] in {where}: {context['error']}." if path else f"{where}: {detail['msg']}."
    given = detail["input"]
    if kind == "union_tag_invalid":
        name, given = f"{name}.{_selector(context)}", context["tag"]
    allowed = _ALLOWED.get(kind, "").format(**context) or detail["msg"]
    return f"{name} is {given!r} in {where}; allowed is {allowed}."


_ALLOWED = {
    "literal_error": "one of {expected}",
    "union_tag_invalid": "one of {expected_tags}",
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "a text in quotes",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a section with settings",
    "model_type": "a section with settings",
    "model_attributes_type": "a section with settings",
    "too_short": "a list of at least {min_length}",
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number less than {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "finite_number": "a finite number",
}


def _known(root: type[BaseModel], loc: Sequence[int | str], file: str) -> str:
    path, _ = _walk(root, loc)
    _, kind = _walk(root, loc[:-1])
    names = list(kind.model_fields) if _is_settings(kind) else []
    nearest = difflib.get_close_matches(path[-1], names, n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    place = f"[{'.'.join(path[:-1])}]" if path[:-1] else f"The top of {file}"
    return f"{hint} {place} knows {', '.join(names)}."


def _walk(root: type[BaseModel], loc: Sequence[int | str]) -> tuple[list[str], Any]:
    """Follow a path of pydantic's through the types; tags of unions are no part of a name."""
    path: list[str] = []
    kind: Any = root
    for part in loc:
        kind = _bare(kind)
        members = [member for member in get_args(kind) if _has_tag(member, part)]
        if members:
            kind = _bare(members[0])
            continue
        path.append(str(part))
        if _is_settings(kind):
            field = kind.model_fields.get(part)
            kind = field.annotation if field else None
        else:
            kind = get_args(kind)[-1] if get_origin(kind) in {dict, list} else None
    return path, _bare(kind)


def _bare(kind: Any) -> Any:
    """Take off annotations and ``| None``."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in {Union, types.UnionType}:
        members = [member for member in get_args(kind) if member is not type(None)]
        return _bare(members[0]) if len(members) == 1 else kind
    return kind


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _has_tag(kind: Any, tag: int | str) -> bool:
    """Say whether a member of a union is the one that a tag selects."""
    if any(isinstance(part, Tag) and part.tag == tag for part in get_args(kind)):
        return True
    fields = kind.model_fields.values() if _is_settings(kind) else ()
    literals = (f.annotation for f in fields if get_origin(f.annotation) is Literal)
    return any(get_args(literal) == (tag,) for literal in literals)


def _selector(context: Mapping[str, Any]) -> str:
    """Name the setting that selects a member: pydantic writes ``'name'`` or ``_name()``."""
    return str(context["discriminator"]).strip("'_()")
