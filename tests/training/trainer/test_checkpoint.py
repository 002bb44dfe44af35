"""Checkpoints: the old one or the new one, and a clear word about anything else."""

import json
import os
from pathlib import Path

import pytest
import torch

from secateur.errors import StorageError
from secateur.training.trainer._checkpoint import (
    has_checkpoint,
    read_checkpoint,
    write_checkpoint,
)


def files(run):
    return sorted(path.name for path in (run / "checkpoint").iterdir())


def test_what_was_written_is_read(tmp_path):
    assert not has_checkpoint(tmp_path)
    write_checkpoint(tmp_path, {"step": 3, "weights": {"a": torch.arange(3)}})
    assert has_checkpoint(tmp_path)
    state = read_checkpoint(tmp_path)
    assert state["step"] == 3
    assert torch.equal(state["weights"]["a"], torch.arange(3))


def test_it_is_safetensors_and_json_and_the_old_one_goes(tmp_path):
    for step in range(3):
        write_checkpoint(tmp_path, {"step": step, "a": torch.zeros(2)})
    state, tensors = files(tmp_path)
    assert state == "state.json"
    assert tensors.startswith("tensors-")
    assert tensors.endswith(".safetensors")
    assert read_checkpoint(tmp_path)["step"] == 2


class Crash(BaseException):
    pass


def test_a_crash_at_any_moment_leaves_the_old_or_the_new_checkpoint(tmp_path, monkeypatch):
    """Every file operation of a write fails once; then the one before it happened."""
    operations = [(os, "fsync"), (Path, "write_text"), (Path, "replace"), (Path, "unlink")]
    counter = iter(range(10**6))
    fail_at = -1

    def failing(original):
        def operation(*args, **kwargs):
            if next(counter) == fail_at:
                raise Crash
            return original(*args, **kwargs)

        return operation

    write_checkpoint(tmp_path, {"step": 0, "a": torch.zeros(2)})
    for owner, name in operations:
        monkeypatch.setattr(owner, name, failing(getattr(owner, name)))
    seen = set()
    while True:
        fail_at += 1
        counter = iter(range(10**6))
        try:
            write_checkpoint(tmp_path, {"step": 1, "a": torch.ones(2)})
            break
        except Crash:
            state = read_checkpoint(tmp_path)
            assert torch.equal(state["a"], torch.full((2,), float(state["step"])))
            seen.add(state["step"])
        counter = iter(range(100, 10**6))
        write_checkpoint(tmp_path, {"step": 0, "a": torch.zeros(2)})
    assert seen == {0, 1}
    assert fail_at >= 5
    assert len(files(tmp_path)) == 2


def test_a_missing_checkpoint_is_said(tmp_path):
    with pytest.raises(StorageError, match="holds no checkpoint, so the run cannot be resumed"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state | {"tensors": "../../secrets.safetensors"},
        lambda state: state | {"tensors": "tensors-0000000000000000.safetensors"},
        lambda state: state | {"version": 2},
        lambda state: state | {"kind": "something else"},
        lambda state: state | {"more": 1},
        lambda state: state | {"state": {"list": []}},
        lambda state: state | {"state": {"tensor": "7", "order": []}},
        lambda state: [state],
    ],
)
def test_a_damaged_or_foreign_state_is_refused(tmp_path, change):
    write_checkpoint(tmp_path, {"a": torch.zeros(2)})
    path = tmp_path / "checkpoint/state.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(StorageError, match="Restore"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\udcff"])
def test_text_that_is_no_json_is_refused(tmp_path, text):
    write_checkpoint(tmp_path, {"a": torch.zeros(2)})
    path = tmp_path / "checkpoint/state.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(StorageError, match="is damaged"):
        read_checkpoint(tmp_path)


def test_cut_tensors_are_refused(tmp_path):
    write_checkpoint(tmp_path, {"a": torch.zeros(200)})
    tensors = next((tmp_path / "checkpoint").glob("tensors-*"))
    tensors.write_bytes(tensors.read_bytes()[:-50])
    with pytest.raises(StorageError, match="is damaged"):
        read_checkpoint(tmp_path)


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "checkpoint").write_text("in the way")
    with pytest.raises(StorageError, match=r"could not be written: .*Check that the folder"):
        write_checkpoint(tmp_path, {"a": torch.zeros(2)})
