from __future__ import annotations

import pytest

from secateur.storage._json import MAX_DEPTH, canonical_json, parse_json


def test_plain_json_is_parsed() -> None:
    assert parse_json(b'{"a": [1, 2.5, null, true, "\\u00e9"]}') == {"a": [1, 2.5, None, True, "é"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' stands there twice"),
        (b"[NaN]", "NaN is not a number of JSON"),
        (b"[-Infinity]", "-Infinity is not a number of JSON"),
        (b"[1e999]", "1e999 is too large for a number"),
        (b"[" * 65 + b"]" * 65, "it nests deeper than 64 levels"),
        (b"[" * 200_000, "it nests deeper than 64 levels"),
    ],
)
def test_what_readers_would_understand_differently_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        parse_json(text)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[1" + b"0" * 5000 + b"]", b"{} {}"])
def test_anything_else_that_is_not_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the words are Python's own
        parse_json(text)


def test_the_deepest_value_allowed_is_parsed() -> None:
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)


def test_equal_values_have_one_spelling() -> None:
    assert canonical_json({"b": 1, "a": [1, "é"]}) == b'{"a":[1,"\\u00e9"],"b":1}'
