"""Whatever happens to the bytes of a save, loading it fails with one kind of error."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.errors import StorageError
from secateur.storage import load, save
from tests.storage.saves import assert_same_bits, rewrite_structure, small, small_cut

FILES = ("model.safetensors", "structure.json")
Folders = tuple[Path, Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """A good save, and a folder to damage it in."""
    good, bad = tmp_path_factory.mktemp("good"), tmp_path_factory.mktemp("bad")
    with torch.random.fork_rng():
        save(small_cut(), good)
    return good, bad


def damaged(folders: Folders, name: str, content: bytes) -> Path:
    good, bad = folders
    for file in FILES:
        shutil.copy(good / file, bad / file)
    (bad / name).write_bytes(content)
    return bad


def check(folders: Folders, name: str, content: bytes) -> None:
    good, _ = folders
    if content == (good / name).read_bytes():
        return
    folder = damaged(folders, name, content)
    try:
        model = load(small, folder)
    except StorageError:
        return
    # Only spaces between the words of structure.json may change without harm.
    assert name == "structure.json"
    assert_same_bits(model, load(small, good))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_noticed(folders: Folders, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FILES))
    content = bytearray((folders[0] / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    check(folders, name, bytes(content))


def test_every_flipped_bit_of_the_tensors_is_noticed(folders: Folders) -> None:
    content = (folders[0] / FILES[0]).read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        with pytest.raises(StorageError):
            load(small, damaged(folders, FILES[0], bytes(flipped)))


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_truncated_or_lengthened_file_is_noticed(folders: Folders, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FILES))
    content = (folders[0] / name).read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    tail = data.draw(st.binary(max_size=20))
    check(folders, name, content[:cut] + tail)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(FILES), st.binary(max_size=200))
def test_any_bytes_are_refused(folders: Folders, name: str, content: bytes) -> None:
    check(folders, name, content)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_forged_structure_loads_the_same_tensors_or_is_refused(
    folders: Folders, data: st.DataObject
) -> None:
    """Replace any one value of structure.json by any other, with a checksum that agrees."""
    good, _ = folders
    folder = damaged(folders, FILES[1], (good / FILES[1]).read_bytes())

    def change(content: dict[str, object]) -> None:
        place: object = content
        while isinstance(place, dict | list) and place:
            keys = sorted(place) if isinstance(place, dict) else range(len(place))
            key = data.draw(st.sampled_from(keys))
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
                place[key] = data.draw(JSON_VALUES)
                return
            place = inner

    rewrite_structure(folder, change)
    try:
        model = load(small, folder)
    except StorageError:
        return
    tensors, expected = model.state_dict(), load(small, good).state_dict()
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)
