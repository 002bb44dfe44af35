from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from secateur.errors import StorageError
from secateur.storage import _save as save_module
from secateur.storage import load, save
from tests.storage.saves import assert_same_bits, saved, small, small_cut


class Killed(BaseException):
    """Stands for the process ending: nothing of it runs afterwards."""


def kill_at_rename(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the process at its n-th rename, clean-up included."""
    left = [number]
    replace = os.replace

    def counted(*args: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            monkeypatch.setattr(os, "unlink", ended)
            raise Killed
        replace(*args)

    def ended(*args: str) -> None:
        raise Killed

    monkeypatch.setattr(os, "replace", counted)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_save_that_is_killed_leaves_the_old_one_or_the_new_one(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, newest = small(), small_cut(), small_cut()
    save(old, tmp_path)
    with monkeypatch.context() as patch:
        kill_at_rename(number, patch)
        with pytest.raises(Killed):
            save(new, tmp_path)
    # Renames: the unfinished structure, the tensors (here the new save takes over), the structure.
    assert_same_bits(load(small, tmp_path), new if number == 3 else old)
    save(newest, tmp_path)
    assert_same_bits(load(small, tmp_path), newest)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_first_save_that_is_killed_is_absent_or_whole(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_cut()
    with monkeypatch.context() as patch:
        kill_at_rename(number, patch)
        with pytest.raises(Killed):
            save(model, tmp_path)
    if number == 3:
        assert_same_bits(load(small, tmp_path), model)
    else:
        with pytest.raises(StorageError, match=r"holds no model\.safetensors\."):
            load(small, tmp_path)


@pytest.mark.parametrize("number", [1, 2])
def test_a_save_that_fails_changes_nothing_and_leaves_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = small()
    save(old, tmp_path)
    left = [number]
    replace = os.replace

    def failing(*args: str) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(28, "No space left on device")
        replace(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing)
        with pytest.raises(StorageError) as caught:
            save(small_cut(), tmp_path)
    assert str(caught.value) == (
        f"The model could not be saved in {tmp_path}: [Errno 28] No space left on device. "
        "Check that the folder can be written and the disk has room."
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model.safetensors",
        "structure.json",
    ]
    assert_same_bits(load(small, tmp_path), old)


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(StorageError, match=r"The model could not be saved in .*: .*File exists"):
        save(small(), path)


def test_what_killed_saves_left_is_swept_once_it_is_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".saving-0.safetensors", f".structure-{'0' * 64}-0.json", "events.jsonl"):
        (tmp_path / name).touch()
    save(small(), tmp_path)
    assert len(list(tmp_path.iterdir())) == 5
    monkeypatch.setattr(save_module, "_STALE_SECONDS", -1.0)
    save(small(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "events.jsonl",
        "model.safetensors",
        "structure.json",
    ]


def test_two_processes_that_save_the_same_model_do_not_disturb_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks of a distributed run often save at once; interleave them at every rename."""
    model = small_cut()
    replace = os.replace
    for number in (1, 2, 3):
        folder, renames = tmp_path / str(number), itertools.count(1)

        def interleaved(
            *args: str, folder: Path = folder, at: int = number, renames: Iterator[int] = renames
        ) -> None:
            if next(renames) == at:
                save(model, folder)
            replace(*args)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", interleaved)
            save(model, folder)
        assert_same_bits(load(small, folder), model)
        assert len(list(saved(model, folder).iterdir())) == 2
