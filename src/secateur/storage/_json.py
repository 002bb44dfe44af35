"""Reading JSON that somebody else may have written."""

from __future__ import annotations

import json
import math

JsonObject = dict[str, object]

MAX_DEPTH = 64


def parse_json(data: bytes) -> object:
    """Parse JSON and refuse what different readers would understand differently.

    Args:
        data: UTF-8 text.

    Returns:
        Dicts, lists, strings, numbers, booleans and None.

    Raises:
        ValueError: If the text is no JSON, repeats a key, holds a number that is not finite, or
            nests deeper than `MAX_DEPTH`.
    """
    try:
        value: object = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_without_repetition,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise ValueError(f"it nests deeper than {MAX_DEPTH} levels") from error
    level: list[object] = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return value
    raise ValueError(f"it nests deeper than {MAX_DEPTH} levels")


def canonical_json(value: object) -> bytes:
    """Return the one spelling of a JSON value that checksums are taken of.

    Args:
        value: What `parse_json` returned.

    Returns:
        ASCII text with sorted keys and no spaces.

    Raises:
        TypeError: If the value is not made of JSON's types.
        ValueError: If it holds a number that is not finite.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def _children(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _without_repetition(pairs: list[tuple[str, object]]) -> JsonObject:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {repeated[:80]!r} stands there twice")
    return result


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large for a number")
    return number
