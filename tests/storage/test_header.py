from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest
import torch

from secateur.errors import StorageError
from secateur.storage import load
from secateur.storage._header import Entry, read_header
from tests.storage.saves import safetensors_bytes, saved, small

ADVICE = "Fetch the folder again, or save the model again with secateur.save()."


def entry(start: int, end: int, shape: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_a_header_that_describes_every_byte_once_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = {"__metadata__": {"x": "y"}, "b": entry(8, 12, [2], "F16"), "a": entry(0, 8, [2, 1])}
    path.write_bytes(safetensors_bytes(header, bytes(12)))
    assert read_header(path) == {
        "a": Entry(dtype="float32", shape=(2, 1), start=0, end=8),
        "b": Entry(dtype="float16", shape=(2,), start=8, end=12),
    }


DAMAGES = {
    "empty": (b"", "it has 0 bytes, too few for a safetensors file"),
    "text": (
        b"hello world, this is not it",
        "it announces a header of 8031924123371070824 bytes in a file of 27 bytes "
        "(at most 100000000 are allowed)",
    ),
    "header cut": (
        safetensors_bytes({"a": entry(0, 4, [1])}, b"")[:40],
        "it announces a header of 61 bytes in a file of 40 bytes (at most 100000000 are allowed)",
    ),
    "list": (safetensors_bytes([], b""), "its header is not a JSON object"),
    "nan": (
        safetensors_bytes(b'{"a": NaN}', b""),
        "its header is not valid JSON: NaN is not a number of JSON",
    ),
    "extra field": (
        safetensors_bytes({"a": entry(0, 4, [1]) | {"code": "x"}}, bytes(4)),
        "the header's entry of tensor 'a' does not consist of dtype, shape and data_offsets",
    ),
    "dtype": (
        safetensors_bytes({"a": entry(0, 4, [1], "F31")}, bytes(4)),
        "the header's entry of tensor 'a' has dtype 'F31', expected one of BF16, BOOL, C64, F16, "
        "F32, F64, F8_E4M3, F8_E5M2, I16, I32, I64, I8, U16, U32, U64, U8",
    ),
    "negative size": (
        safetensors_bytes({"a": entry(0, 4, [-1])}, bytes(4)),
        "the header's entry of tensor 'a' has a shape or data_offsets that are not sizes",
    ),
    "boolean size": (
        safetensors_bytes({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, b""),
        "the header's entry of tensor 'a' has a shape or data_offsets that are not sizes",
    ),
    "three offsets": (
        safetensors_bytes({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}, b""),
        "the header's entry of tensor 'a' has a shape or data_offsets that are not sizes",
    ),
    "wrong length": (
        safetensors_bytes({"a": entry(0, 8, [3])}, bytes(8)),
        "the header's entry of tensor 'a' holds 8 bytes, but float32 [3] takes 12",
    ),
    "overlap": (
        safetensors_bytes({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)),
        "tensor 'b' starts at byte 4 of the data, expected 8: tensors overlap or leave a gap",
    ),
    "gap": (
        safetensors_bytes({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, bytes(12)),
        "tensor 'b' starts at byte 8 of the data, expected 4: tensors overlap or leave a gap",
    ),
    "data cut": (
        safetensors_bytes({"a": entry(0, 4, [1]), "b": entry(4, 12, [2])}, bytes(11)),
        "tensor 'b' should end at byte 12 of the data, but only 11 bytes are there (truncated?)",
    ),
    "data left over": (
        safetensors_bytes({"a": entry(0, 4, [1])}, bytes(7)),
        "3 bytes of data belong to no tensor",
    ),
}


@pytest.mark.parametrize(("content", "fact"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_file_is_refused_with_what_is_wrong(
    content: bytes, fact: str, tmp_path: Path
) -> None:
    path = saved(small(), tmp_path) / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(StorageError) as caught:
        load(small, tmp_path)
    assert str(caught.value) == f"{path} is damaged or of another format: {fact}. {ADVICE}"


class Armed:
    """Says so when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('a pickle was opened')",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5, None], ids=str)
def test_a_pickle_under_the_name_of_the_tensors_is_not_opened(
    protocol: int | None, tmp_path: Path
) -> None:
    path = saved(small(), tmp_path) / "model.safetensors"
    if protocol is None:
        torch.save({"weight": Armed()}, path)
    else:
        path.write_bytes(pickle.dumps(Armed(), protocol=protocol))
    with pytest.raises(StorageError) as caught:
        load(small, tmp_path)
    assert str(caught.value) == (
        f"{path} is a pickle or a zip archive (torch.save writes those), not a safetensors file. "
        "Pickles can run code, so secateur never opens one; save the model with secateur.save()."
    )


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=re.escape(f"{tmp_path} cannot be read: ")):
        read_header(tmp_path)


def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path) -> None:
    """640 is written as 80 02, and so begins a pickle of protocol 2."""
    entries = {"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(entries).encode().ljust(0x0280)
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
    assert list(read_header(path)) == ["weight"]
