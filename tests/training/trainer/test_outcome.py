"""The figures of a finished run, read back from its folder."""

import pytest

from secateur.errors import StorageError, UsageError
from secateur.training.trainer import create_run, read_outcome
from tests.training.trainer.tiny_runs import finished_run, tiny_config


def test_what_is_read_back_is_what_training_returned(tmp_path):
    outcome = finished_run(tiny_config(), tmp_path / "run")
    assert read_outcome(outcome.run) == outcome


def test_a_run_without_end_has_no_figures(tmp_path):
    run = create_run(tiny_config(), tmp_path / "run")
    with pytest.raises(UsageError, match=r"is not finished, so it has no figures yet\. Finish it"):
        read_outcome(run)


def test_damaged_events_are_named(tmp_path):
    run = create_run(tiny_config(), tmp_path / "run")
    (run / "events.jsonl").write_text('{"event": "start"}\n{"event": "end"}\n')
    with pytest.raises(StorageError, match=r"events.jsonl do not hold the figures .*KeyError"):
        read_outcome(run)
