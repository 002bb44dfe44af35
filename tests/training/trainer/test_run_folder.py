"""Run folders are named, and never overwritten."""

import re

import pytest

from secateur.errors import StorageError, UsageError
from secateur.training.trainer import create_run, discard_unbegun, is_finished, open_run
from tests.training.trainer.tiny_runs import tiny_config


def test_a_run_keeps_its_config(tmp_path):
    run = create_run(tiny_config(), tmp_path / "a/b")
    assert run == tmp_path / "a/b"
    assert open_run(run) == tiny_config()
    assert not is_finished(run)


def test_without_a_folder_the_name_and_the_time_make_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "20261121-080910")
    assert str(create_run(tiny_config())) == "runs/tiny-20261121-080910"
    (tmp_path / "runs").rename(tmp_path.parent / f"{tmp_path.name}-runs")


def test_a_finished_run_is_not_overwritten(tmp_path):
    run = create_run(tiny_config(), tmp_path / "run")
    (run / "events.jsonl").write_text('{"event": "start"}\n{"event": "end", "step": 3}\n')
    assert is_finished(run)
    with pytest.raises(
        UsageError, match=re.escape(f"{run} holds a finished run, which is not overwritten. Give")
    ):
        create_run(tiny_config(), run)


def test_a_run_that_has_begun_is_not_overwritten(tmp_path):
    run = create_run(tiny_config(), tmp_path / "run")
    (run / "events.jsonl").write_text('{"event": "start"}\n{"event": "end", "st')
    with pytest.raises(
        UsageError, match=re.escape(f"has begun. Go on with it by --resume {run}, give another")
    ):
        create_run(tiny_config(), run)


def test_a_folder_without_a_run_is_said(tmp_path):
    with pytest.raises(UsageError, match=r"is not the folder of a run: it has no config\.toml"):
        open_run(tmp_path)


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"run cannot be made \(Not a directory\)"):
        create_run(tiny_config(), tmp_path / "file/run")


def test_only_a_run_in_which_nothing_happened_is_discarded(tmp_path):
    run = create_run(tiny_config(), tmp_path / "run")
    (run / "events.jsonl").write_text('{"event": "start"}\n')
    discard_unbegun(run)
    assert (run / "config.toml").exists()
    (run / "events.jsonl").write_text("")
    (run / "notes.txt").write_text("mine")
    discard_unbegun(run)
    assert [file.name for file in run.iterdir()] == ["notes.txt"]
