"""structure.json as bytes: writing it, and reading one that may be damaged or hostile."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path

import torch
from pydantic import ValidationError

from secateur.errors import StorageError, UsageError
from secateur.storage._document import KIND, VERSION, Document
from secateur.storage._json import JsonObject, canonical_json, parse_json

MAX_BYTES = 64 * 2**20


def secateur_version() -> str:
    """Return the installed version, or ``unknown`` when run from a source folder."""
    try:
        return metadata.version("secateur")
    except metadata.PackageNotFoundError:
        return "unknown"


def render(content: JsonObject) -> bytes:
    """Return the bytes of structure.json.

    Args:
        content: Every field of `Document` that differs from save to save.

    Returns:
        Indented JSON with a checksum over everything else in it.

    Raises:
        UsageError: If the model cannot be described by the schema, or takes too many bytes.
    """
    document: JsonObject = {
        "kind": KIND,
        "version": VERSION,
        "secateur": secateur_version(),
        "torch": str(torch.__version__),
        **content,
    }
    checksum = hashlib.sha256(canonical_json(document)).hexdigest()
    text = _laid_out({**document, "checksum": checksum}).encode("ascii")
    if len(text) > MAX_BYTES:
        raise UsageError(
            f"The model cannot be saved: structure.json would have {len(text)} bytes, more than "
            f"the {MAX_BYTES} it may have. Extra states take most of that; make them smaller."
        )
    try:
        parse_json(text)
        Document.model_validate_json(json.dumps(document))
    except ValueError as error:
        fact = _first_fault(error) if isinstance(error, ValidationError) else str(error)
        raise UsageError(
            f"The model cannot be saved: in structure.json, {fact}. Rename or change what is "
            "named there."
        ) from error
    return text


def read(path: Path) -> Document:
    """Read and check a structure.json.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        StorageError: If it is missing, too large, damaged, foreign, newer, or breaks the schema.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror}. "
            "Give the folder that secateur.save() wrote to."
        ) from error
    return parse(data, str(path))


def parse(data: bytes, where: str) -> Document:
    """Check the bytes of a structure.json.

    Args:
        data: The file's content.
        where: What to call the file in errors.

    Returns:
        The content.

    Raises:
        StorageError: If it is too large, damaged, foreign, newer, or breaks the schema.
    """
    if len(data) > MAX_BYTES:
        raise StorageError(_damaged(where, f"it is larger than {MAX_BYTES} bytes"))
    try:
        content = parse_json(data)
    except ValueError as error:
        raise StorageError(_damaged(where, f"it is not valid JSON: {error}")) from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise StorageError(
            f"{where} was not written by secateur: it does not say that it is a {KIND!r}. "
            "Give the folder that secateur.save() wrote to."
        )
    _check_version(where, content.get("version"))
    checksum = content.pop("checksum", None)
    if checksum != hashlib.sha256(canonical_json(content)).hexdigest():
        raise StorageError(_damaged(where, "its content does not match its checksum"))
    try:
        return Document.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise StorageError(_damaged(where, _first_fault(error))) from error


def _laid_out(document: JsonObject) -> str:
    """Spell JSON with one line for each tensor, module or list."""
    fields = []
    for name, value in document.items():
        text = json.dumps(value)
        if isinstance(value, dict) and value:
            lines = (f"{json.dumps(key)}: {json.dumps(part)}" for key, part in value.items())
            text = "{\n  " + ",\n  ".join(lines) + "\n }"
        fields.append(f" {json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(fields) + "\n}\n"


def _check_version(where: str, version: object) -> None:
    if type(version) is not int or version < 1:
        raise StorageError(_damaged(where, f"its version is {version!r:.80}, expected {VERSION}"))
    if version > VERSION:
        raise StorageError(
            f"{where} has format version {version}, and this secateur ({secateur_version()}) "
            f"reads up to {VERSION}. Update it: pip install --upgrade secateur."
        )


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    place = " > ".join(repr(part)[:200] for part in fault["loc"]) or "its content"
    words = fault["msg"].removeprefix("Value error, ")[:300]
    given = fault["input"]
    if isinstance(given, dict | list):
        return f"{place}: {words}"
    return f"{place}: {words} (given: {given!r:.120})"


def _damaged(where: str, fact: str) -> str:
    return (
        f"{where} is damaged or was not written by secateur.save(): {fact}. Fetch the folder "
        "again, or save the model again."
    )
