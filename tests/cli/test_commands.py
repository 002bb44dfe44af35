"""The commands from a config to an exported network, on a tiny run."""

import json
import re

import pytest
import torch
from typer.testing import CliRunner

from secateur.cli import _demo, app
from secateur.training import trainer
from tests.training.trainer.tiny_runs import tiny_config


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


@pytest.fixture(scope="module", autouse=True)
def _short_measurement():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer._latency, "BUDGET_SECONDS", 0.01)
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("configs") / "tiny.toml"
    path.write_text(trainer.write_config(tiny_config()))
    return path


@pytest.fixture(scope="module")
def finished(config):
    folder = config.parent / "run"
    result = run("train", config, "--out", folder, "--set", "training.epochs=4")
    assert result.exit_code == 0, result.output
    return folder, result


def test_train_ends_with_the_figures_and_the_report(finished):
    folder, result = finished
    end = json.loads((folder / "events.jsonl").read_text().splitlines()[-1])
    assert f"{end['test_accuracy']:.2%}" in result.stdout
    assert f"{end['params']:,.0f}" in result.stdout
    assert f"{end['macs']:,.0f}" in result.stdout
    assert result.stdout.endswith(f"Report: {folder / 'report.html'}\n")
    assert (folder / "report.html").exists()
    assert trainer.open_run(folder).training.epochs == 4


def test_the_bar_tells_loss_accuracy_macs_and_price(finished):
    _, result = finished
    bar = result.stderr.replace("\n", " ")
    assert re.search(r"loss \d\.\d+  accuracy \d+\.\d%  MACs \d+%  price 1.5", bar)


def test_a_finished_run_is_neither_overwritten_nor_resumed(finished, config):
    folder, _ = finished
    again = run("train", config, "--out", folder)
    assert again.exit_code == 2
    assert "holds a finished run, which is not overwritten" in again.stderr
    resumed = run("train", "--resume", folder)
    assert resumed.exit_code == 2
    assert "is finished; there is nothing left to resume" in resumed.stderr


def test_a_wrong_setting_is_named(config, tmp_path):
    result = run("train", config, "--out", tmp_path / "run", "--set", "training.lr=fast")
    assert result.exit_code == 2
    assert "training.lr is 'fast'" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_mistake_leaves_no_folder_in_the_way_of_the_next_attempt(config, tmp_path):
    result = run("train", config, "--out", tmp_path / "run", "--set", "model.name=lenet6")
    assert result.exit_code == 2
    assert "There is no model 'lenet6'" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_mistake_in_a_run_that_was_begun_before_leaves_it_alone(tmp_path):
    folder = trainer.create_run(tiny_config(search=None, epochs=2), tmp_path / "run")
    wrong = (folder / "config.toml").read_text().replace('"digits"', '"digit"')
    (folder / "config.toml").write_text(wrong)
    assert run("train", "--resume", folder).exit_code == 2
    assert (folder / "config.toml").read_text() == wrong


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "neither a config nor a run to resume was given"),
        (["--resume", "run", "a.toml"], "together with a config, --out or --set, but a run is"),
        (["--resume", "run", "--set", "training.epochs=3"], "together with a config, --out or"),
        (["--resume", "run", "--out", "there"], "together with a config, --out or --set"),
        (["--resume", "run"], "run is not the folder of a run: it has no config.toml"),
    ],
)
def test_train_says_what_does_not_go_together(arguments, message):
    result = run("train", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_resume_begins_a_run_that_was_killed_before_its_first_checkpoint(tmp_path):
    folder = trainer.create_run(tiny_config(search=None, epochs=2), tmp_path / "run")
    assert run("train", "--resume", folder).exit_code == 0
    assert trainer.is_finished(folder)


def test_report_writes_the_page_again(finished):
    folder, _ = finished
    (folder / "report.html").unlink()
    result = run("report", folder)
    assert result.stdout == f"Report: {folder / 'report.html'}\n"
    assert (folder / "report.html").exists()


def test_export_writes_a_network_that_answers_as_the_trained_one(finished, tmp_path):
    folder, _ = finished
    result = run("export", folder, "--to", "pt2", "--out", tmp_path / "net.pt2")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"Exported: {tmp_path / 'net.pt2'}\n"
    program = torch.export.load(tmp_path / "net.pt2").module()
    end = json.loads((folder / "events.jsonl").read_text().splitlines()[-1])
    digits = trainer.load_data(tiny_config())
    images = (digits.test.images.float() / 255 - digits.mean[0]) / digits.std[0]
    with torch.no_grad():
        hits = program(images).argmax(dim=1) == digits.test.labels
    assert hits.sum().item() / len(hits) == end["test_accuracy"]


def test_only_a_finished_run_is_exported(tmp_path):
    folder = trainer.create_run(tiny_config(), tmp_path / "run")
    result = run("export", folder)
    assert result.exit_code == 2
    assert f"secateur train --resume {folder}" in result.stderr


def test_trace_shows_families_and_layers():
    result = run("trace", "resnet20", "--width", "0.5")
    assert result.exit_code == 0
    assert "10 families, 176 units, 9 removable layers" in result.stdout


OWN_NETWORK = """
import torch

def build():
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))

def nothing():
    return 3

class Attention(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = 2
        self.project = torch.nn.ModuleList([torch.nn.Linear(6, 6) for _ in range(3)])
        self.out = torch.nn.Linear(6, 2)

    def forward(self, x):
        q, k, v = (p(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for p in self.project)
        mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))
"""


def test_trace_explains_a_tensor():
    result = run("trace", "resnet20", "--explain", "stages.0.0.conv1.weight")
    assert result.exit_code == 0
    assert "axis 0 (16 positions): belongs to the 16 units (filter)" in result.stdout
    wrong = run("trace", "resnet20", "--explain", "stages.0.0.conv1")
    assert wrong.exit_code == 2
    assert "stages.0.0.conv1.weight" in wrong.stderr


def test_trace_takes_a_function_of_the_user(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(OWN_NETWORK)
    monkeypatch.chdir(tmp_path)
    result = run("trace", "own_nets:build", "--example", "1,6")
    assert result.exit_code == 0, result.stderr
    assert " 5 units" in result.stdout
    assert "40 MACs" in result.stdout  # 6 * 5 + 5 * 2
    wrong = run("trace", "own_nets:nothing")
    assert "'own_nets:nothing' returned a int, but a network is needed" in wrong.stderr


def test_trace_takes_positions_inside_heads_as_units_if_told_so(tmp_path, monkeypatch):
    (tmp_path / "own_heads.py").write_text(OWN_NETWORK)
    monkeypatch.chdir(tmp_path)
    heads = run("trace", "own_heads:Attention", "--example", "1,4,6")
    assert re.search(r"project\.0 +head +2 ", heads.stdout)
    inside = run("trace", "own_heads:Attention", "--example", "1,4,6", "--head-dims")
    assert inside.exit_code == 0, inside.stderr
    assert re.search(r"project\.1 +dimension +3 ", inside.stdout)
    assert re.search(r"project\.2 +dimension +3 ", inside.stdout)
    assert not re.search(r"\bhead\b", inside.stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["resnet20", "--example", "many"], "--example 'many' is not the shape of an input"),
        (["resnet20", "--example", "1,0,8,8"], "--example '1,0,8,8' is not the shape"),
        (["resnet20", "--example", "1,64"], "--example has 2 numbers, but 'resnet20' takes images"),
        (["resnet21"], "There is no model 'resnet21'. Did you mean"),
        (["nosuch:thing"], "No network came from 'nosuch:thing' (ModuleNotFoundError"),
        (["math:nothing"], "No network came from 'math:nothing' (AttributeError"),
    ],
)
def test_trace_says_what_is_wrong(arguments, message):
    result = run("trace", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.slow
def test_the_demo_trains_twice_and_compares(tmp_path, monkeypatch):
    tiny = {"epochs": 3, "batch_size": 128, "warmup_epochs": 1.0}

    def short(seed, price):
        config = demo_config(seed, price)
        training = config.training.model_copy(update=tiny)
        model = config.model.model_copy(update={"width": 0.25})
        return config.model_copy(update={"training": training, "model": model})

    demo_config = _demo.demo_config
    monkeypatch.setattr(_demo, "demo_config", short)
    result = run("demo", "--seed", 4, "--out", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    for row in ("test accuracy", "parameters", "MACs", "latency, batch 1", "latency, batch 64"):
        assert row in result.stdout
    assert result.stdout.endswith(f"Report: {tmp_path / 'demo/found/report.html'}\n")
    dense, found = (trainer.open_run(tmp_path / "demo" / name) for name in ("dense", "found"))
    assert dense.search is None
    assert found.search is not None
    assert dense.training == found.training
    assert dense.training.seed == 4
    again = run("demo", "--out", tmp_path / "demo")
    assert again.exit_code == 2
    assert "holds a finished run" in again.stderr


def test_the_comparison_is_of_the_figures(monkeypatch):
    from rich.console import Console

    from secateur.cli._outcome_table import comparison_table

    def outcome(accuracy, macs, seconds):
        return trainer.Outcome(
            run=None,
            test_accuracy=accuracy,
            test_loss=0.0,
            macs_before=2000,
            macs=macs,
            params_before=1000,
            params=400,
            latency={1: trainer.Latency(before=0.004, after=0.003)},
            threads=1,
            train_seconds=seconds,
            training_macs=0.0,
            report=None,
        )

    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(comparison_table(outcome(0.99, 2000, 40.0), outcome(0.985, 500, 30.0)))
    console.file.close()
    rows = [re.split(r"\s{2,}|│", line.strip("│ ")) for line in console.export_text().splitlines()]
    cells = {row[0].strip(): [cell.strip() for cell in row[1:] if cell.strip()] for row in rows}
    assert cells["test accuracy"] == ["99.00%", "98.50%", "-0.50 points"]
    assert cells["parameters"] == ["1,000", "400", "0.40"]
    assert cells["MACs"] == ["2,000", "500", "0.25"]
    assert cells["latency, batch 1"] == ["4.00 ms", "3.00 ms", "0.75"]
    assert cells["training"] == ["40.0 s", "30.0 s", "0.75"]


def test_prune_writes_a_smaller_network_that_training_can_go_on_with(finished, config, tmp_path):
    folder, _ = finished
    small = tmp_path / "small"
    result = run("prune", folder, "--target-macs", "0.6", "--out", small, "--batches", "2")
    assert result.exit_code == 0, result.output
    share = float(re.search(r"in 1 round: ([\d.]+) % of the MACs", result.stdout)[1])
    assert 0 < share <= 60.0
    assert re.search(r"Validation accuracy: \d+\.\d\d% before, \d+\.\d\d% after\.", result.stdout)
    assert f"Saved: {small}\n" in result.stdout
    (command,) = re.findall(r"Train it on with: secateur (.+)\n", result.stdout)
    result = run(*command.split(), "--out", tmp_path / "on")
    assert result.exit_code == 0, result.output
    end = json.loads((tmp_path / "on" / "events.jsonl").read_text().splitlines()[-1])
    begun, _ = trainer.load_network(folder)
    assert end["params"] < 0.9 * sum(p.numel() for p in begun.parameters())
    assert trainer.open_run(folder).search is not None
    assert trainer.open_run(tmp_path / "on").search is None
    assert end["macs"] / trainer.read_outcome(folder).macs == pytest.approx(share / 100, abs=6e-4)


def test_prune_without_a_target_or_with_an_unknown_score_says_what_to_give(finished, tmp_path):
    folder, _ = finished
    result = run("prune", folder, "--out", tmp_path / "small")
    assert result.exit_code == 2
    assert "prune was not told how small the model should get" in result.stderr
    result = run("prune", folder, "--target-macs", "0.5", "--score", "tailor")
    assert result.exit_code == 2
    assert "Did you mean 'taylor'?" in result.stderr
    assert not (tmp_path / "small").exists()
    assert not (folder / "pruned").exists()
