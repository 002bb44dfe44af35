"""`secateur compare`: table, page, resuming, and what it says when it cannot go on."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from secateur.cli import _compare, app
from secateur.compare._config import write_compare_config
from secateur.training import trainer
from tests.compare.tiny import tiny_config


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "100"})


@pytest.fixture(scope="module", autouse=True)
def _short_measurement():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer._latency, "BUDGET_SECONDS", 0.01)
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "tiny.toml"
    path.write_text(write_compare_config(tiny_config()))
    return path


@pytest.fixture(scope="module")
def finished(config):
    folder = config.parent / "out"
    result = run("compare", config, "--out", folder)
    assert result.exit_code == 0, result.output
    return folder, result


def test_the_table_names_every_method_and_the_page_is_written(finished):
    folder, result = finished
    for name in ("dense", "narrowed, 50 %", "random, 50 %", "complexity-aware, 50 %"):
        assert name in result.stdout
    assert "100.0" in result.stdout
    assert result.stdout.endswith(f"Page: {folder / 'comparison.html'}\n")
    assert (folder / "comparison.html").exists()
    assert "5/5" in result.stderr
    assert "…" not in result.stdout


def test_the_same_command_again_runs_nothing(finished, config, monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a training was started")

    monkeypatch.setattr(trainer, "train", refuse)
    folder, result = finished
    again = run("compare", config, "--out", folder)
    assert again.exit_code == 0, again.output
    assert again.stdout == result.stdout


def test_the_config_in_the_folder_is_one_that_can_be_compared_again(finished):
    folder, result = finished
    again = run("compare", folder / "config.toml", "--out", folder)
    assert again.stdout == result.stdout


def test_a_wrong_setting_is_named_and_nothing_is_made(config, tmp_path):
    result = run("compare", config, "--out", tmp_path / "out", "--set", "training.lr=fast")
    assert result.exit_code == 2
    assert "training.lr is 'fast'" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stop", [trainer.InterruptedRunError(Path("run")), KeyboardInterrupt()])
def test_a_stop_says_how_to_go_on(config, tmp_path, monkeypatch, stop):
    def stopped(found, folder, on_progress):
        raise stop

    monkeypatch.setattr(_compare, "carry_out", stopped)
    result = run("compare", config, "--out", tmp_path)
    assert result.exit_code == 130
    assert "Stopped. Go on with the same command." in result.stderr
    assert "train --resume" not in result.stderr


def test_a_folder_that_cannot_be_made_is_named_before_anything_is_trained(config, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("compare", config, "--out", tmp_path / "file" / "out")
    assert result.exit_code == 2
    assert "file/out/comparison.json cannot be written (Not a directory)" in result.stderr


def test_the_page_is_there_before_the_first_cell(config, tmp_path):
    result = run("compare", config, "--out", tmp_path, "--set", "model.name=lenet6")
    assert result.exit_code == 2
    assert "There is no model 'lenet6'" in result.stderr
    assert "No cell is finished yet." in (tmp_path / "comparison.html").read_text()
