"""The header of a safetensors file, checked before anything else looks into the file.

Layout: 8 bytes with the length of the header (little endian), the header (JSON), the data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from secateur.errors import StorageError
from secateur.storage._dtypes import BY_SAFETENSORS, DTYPES
from secateur.storage._json import parse_json

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_MAX_SIZE = 2**40
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the header says about one tensor.

    Attributes:
        dtype: Element type, by its name in structure.json.
        shape: Sizes.
        start: First byte, counted from the start of the data.
        end: Byte after the last.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path) -> dict[str, Entry]:
    """Read the header and make sure that it describes every byte of the file once.

    Args:
        path: A safetensors file.

    Returns:
        Tensor name to what is said about it.

    Raises:
        StorageError: If the file is missing, truncated, damaged, or of another format.
    """
    try:
        with path.open("rb") as file:
            text, num_data_bytes = _header_text(path, file)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror}. "
            "Give the folder that secateur.save() wrote to."
        ) from error
    try:
        header = parse_json(text)
    except ValueError as error:
        raise StorageError(_damaged(path, f"its header is not valid JSON: {error}")) from error
    if not isinstance(header, dict):
        raise StorageError(_damaged(path, "its header is not a JSON object"))
    header.pop("__metadata__", None)
    entries = {name: _entry(path, name, value) for name, value in header.items()}
    _check_layout(path, entries, num_data_bytes)
    return entries


def _header_text(path: Path, file: BinaryIO) -> tuple[bytes, int]:
    num_bytes = file.seek(0, 2)
    file.seek(0)
    prefix, opening = file.read(8), file.read(1)
    length = int.from_bytes(prefix, "little")
    fits = length <= min(MAX_HEADER_BYTES, num_bytes - 8)
    # A header of 640 bytes begins as a pickle does; then a brace follows, and no pickle has one.
    if prefix.startswith(_PICKLES) and not (fits and opening == b"{"):
        raise StorageError(
            f"{path} is a pickle or a zip archive (torch.save writes those), not a safetensors "
            "file. Pickles can run code, so secateur never opens one; save the model with "
            "secateur.save()."
        )
    if len(prefix) < 8:
        raise StorageError(
            _damaged(path, f"it has {num_bytes} bytes, too few for a safetensors file")
        )
    if not fits:
        raise StorageError(
            _damaged(
                path,
                f"it announces a header of {length} bytes in a file of {num_bytes} bytes "
                f"(at most {MAX_HEADER_BYTES} are allowed)",
            )
        )
    return opening + file.read(length - len(opening)), num_bytes - 8 - length


def _entry(path: Path, name: str, value: object) -> Entry:
    where = f"the header's entry of tensor {name[:200]!r}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise StorageError(
            _damaged(path, f"{where} does not consist of dtype, shape and data_offsets")
        )
    dtype = BY_SAFETENSORS.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        known = ", ".join(sorted(BY_SAFETENSORS))
        raise StorageError(
            _damaged(path, f"{where} has dtype {value['dtype']!r:.80}, expected one of {known}")
        )
    shape, offsets = _sizes(value["shape"]), _sizes(value["data_offsets"])
    if shape is None or offsets is None or len(offsets) != 2:
        raise StorageError(
            _damaged(path, f"{where} has a shape or data_offsets that are not sizes")
        )
    expected = math.prod(shape) * DTYPES[dtype][2]
    if offsets[1] - offsets[0] != expected:
        raise StorageError(
            _damaged(
                path,
                f"{where} holds {offsets[1] - offsets[0]} bytes, but {dtype} {list(shape)} takes "
                f"{expected}",
            )
        )
    return Entry(dtype=dtype, shape=shape, start=offsets[0], end=offsets[1])


def _sizes(value: object) -> tuple[int, ...] | None:
    if not isinstance(value, list) or len(value) > 64:
        return None
    if not all(type(size) is int and 0 <= size <= _MAX_SIZE for size in value):
        return None
    return tuple(value)


def _check_layout(path: Path, entries: dict[str, Entry], num_data_bytes: int) -> None:
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.end > num_data_bytes:
            raise StorageError(
                _damaged(
                    path,
                    f"tensor {name[:200]!r} should end at byte {entry.end} of the data, but only "
                    f"{num_data_bytes} bytes are there (truncated?)",
                )
            )
        if entry.start != end:
            raise StorageError(
                _damaged(
                    path,
                    f"tensor {name[:200]!r} starts at byte {entry.start} of the data, expected "
                    f"{end}: tensors overlap or leave a gap",
                )
            )
        end = entry.end
    if end != num_data_bytes:
        raise StorageError(
            _damaged(path, f"{num_data_bytes - end} bytes of data belong to no tensor")
        )


def _damaged(path: Path, fact: str) -> str:
    return (
        f"{path} is damaged or of another format: {fact}. Fetch the folder again, or save the "
        "model again with secateur.save()."
    )
