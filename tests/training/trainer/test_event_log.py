"""Events: one line each, on the disk at once, cut back where a run goes on."""

import json

import numpy as np
import pytest
import torch

from secateur.errors import StorageError
from secateur.training.trainer._event_log import EventLog


def lines(run):
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def test_every_event_is_a_line_that_is_there_at_once(tmp_path):
    with EventLog(tmp_path) as log:
        log.write({"event": "step", "step": 1, "loss": 0.5})
        assert [line["event"] for line in lines(tmp_path)] == ["step"]
        log.write({"event": "end", "step": 2, "seconds": -1, "removed": ("a", "b")})
        first, second = lines(tmp_path)
    assert first["loss"] == 0.5
    assert second["removed"] == ["a", "b"]
    assert 0 <= first["seconds"] <= second["seconds"]


def test_what_lies_beyond_the_cursor_is_cut_off(tmp_path):
    with EventLog(tmp_path) as log:
        log.write({"event": "step", "step": 1})
        cursor = log.sync()
        log.write({"event": "step", "step": 2})
    with EventLog(tmp_path, num_bytes=cursor, seconds=100.0) as log:
        log.write({"event": "step", "step": 3})
    assert [line["step"] for line in lines(tmp_path)] == [1, 3]
    assert lines(tmp_path)[1]["seconds"] >= 100
    assert cursor == len((tmp_path / "events.jsonl").read_bytes().splitlines(keepends=True)[0])


def test_values_become_what_json_knows(tmp_path):
    values = {"a": torch.tensor([1.5, 2.0]), "b": float("nan"), "c": {1: {2}}, "d": np.float64(3)}
    with EventLog(tmp_path) as log:
        log.write({"event": "step", "step": 1, **values})
    line = lines(tmp_path)[0]
    assert [line[name] for name in "abcd"] == [[1.5, 2.0], None, {"1": [2]}, 3.0]


def test_a_file_shorter_than_the_cursor_is_refused(tmp_path):
    (tmp_path / "events.jsonl").write_text("{}\n")
    with pytest.raises(StorageError, match="has 3 bytes, but the checkpoint beside it was written"):
        EventLog(tmp_path, num_bytes=4)


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "events.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"events\.jsonl cannot be written \(Is a directory\)"):
        EventLog(tmp_path)
