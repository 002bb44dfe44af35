"""A run that was stopped ends as if it had not been, to the last bit."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from secateur.errors import StorageError
from secateur.training.trainer import InterruptedRunError, ResRepConfig, create_run, train
from secateur.training.trainer._checkpoint import read_checkpoint
from tests.training.trainer.tiny_runs import (
    events,
    finished_run,
    ignore,
    tiny_config,
    weights,
)

VARIANTS = {
    "long": {"epochs": 15},  # long enough to be met in the middle from outside
    "search": {},
    "resrep": {"search": ResRepConfig(method="resrep", target_macs=0.6)},
    "dense, AdamW": {"search": None, "optimizer": "adamw", "lr": 0.003},
    "search, AdamW, channels last, half precision": {
        "optimizer": "adamw",
        "lr": 0.003,
        "channels_last": True,
        "precision": "bf16-mixed",
    },
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Uninterrupted runs by name."""
    runs = {}

    def get(name):
        if name not in runs:
            folder = tmp_path_factory.mktemp("whole")
            runs[name] = finished_run(tiny_config(**VARIANTS[name]), folder / "run").run
        return runs[name]

    return get


def assert_same(run, expected):
    """Weights equal to the bit, events equal but for the clock."""
    found, wanted = weights(run), weights(expected)
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(found[name], wanted[name])] == []
    assert events(run) == events(expected)


def stop_after(steps, action):
    """Call an action, in the middle of the loop, when so many more steps were taken."""
    left = iter(range(steps - 1, -1, -1))

    def hook(optimizer, args, kwargs):
        if next(left, None) == 0:
            action()

    return register_optimizer_step_post_hook(hook)


def ask_to_stop():
    signal.raise_signal(signal.SIGINT)


class Killed(BaseException):
    pass


def kill():
    raise Killed


def run_with(run, steps, action):
    handle = stop_after(steps, action)
    try:
        train(run, on_progress=ignore)
    finally:
        handle.remove()


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "long"])
def test_stopped_twice_within_epochs_it_ends_the_same(whole, tmp_path, name):
    """Before and after the first removals, at settling, and at the last batch of an epoch."""
    run = create_run(tiny_config(**VARIANTS[name]), tmp_path / "run")
    for steps in (3, 10, 2, 3):
        with pytest.raises(InterruptedRunError, match="was stopped and can be resumed"):
            run_with(run, steps, ask_to_stop)
    train(run, on_progress=ignore)
    assert_same(run, whole(name))


@pytest.mark.parametrize(("asked", "stopped"), [(7, 7), (10, 11)])
def test_no_step_is_lost_when_it_stops(tmp_path, asked, stopped):
    """The last step of an epoch is followed by validation and the first step of the next one."""
    run = create_run(tiny_config(), tmp_path / "run")
    with pytest.raises(InterruptedRunError):
        run_with(run, asked, ask_to_stop)
    assert read_checkpoint(run)["loop"]["step"] == stopped
    assert events(run)[-1]["step"] == stopped


def test_dropout_goes_on_where_it_was(tmp_path, monkeypatch):
    def build(name, **shape):
        layers = [nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Dropout(0.5), nn.Linear(20, 10)]
        return nn.Sequential(*layers)

    monkeypatch.setattr("secateur.models.build", build)
    whole = finished_run(tiny_config(), tmp_path / "whole").run
    run = create_run(tiny_config(), tmp_path / "run")
    with pytest.raises(InterruptedRunError):
        run_with(run, 8, ask_to_stop)
    train(run, on_progress=ignore)
    assert_same(run, whole)


def test_killed_within_an_epoch_it_goes_on_from_the_one_before(whole, tmp_path):
    run = create_run(tiny_config(), tmp_path / "run")
    for steps in (2, 13, 12):
        with pytest.raises(Killed):
            run_with(run, steps, kill)
    train(run, on_progress=ignore)
    assert_same(run, whole("search"))


def test_killed_while_the_finished_network_is_measured(whole, tmp_path):
    run = create_run(tiny_config(), tmp_path / "run")

    def kill_at_measuring(progress):
        if progress.phase == "measure":
            raise Killed

    with pytest.raises(Killed):
        train(run, on_progress=kill_at_measuring)
    train(run, on_progress=ignore)
    assert_same(run, whole("search"))


def test_asked_to_stop_in_the_last_epochs_end_it_finishes(whole, tmp_path):
    run = create_run(tiny_config(), tmp_path / "run")
    run_with(run, 25, ask_to_stop)
    assert_same(run, whole("search"))


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    run = create_run(tiny_config(search=None), tmp_path / "run")
    with pytest.raises(InterruptedRunError):
        run_with(run, 3, ask_to_stop)
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("width = 0.25", "width = 0.5"))
    with pytest.raises(StorageError, match=r"The checkpoint does not fit the network: .* differ"):
        train(run, on_progress=ignore)


def test_events_older_than_the_checkpoint_are_refused(tmp_path):
    run = create_run(tiny_config(search=None), tmp_path / "run")
    with pytest.raises(InterruptedRunError):
        run_with(run, 7, ask_to_stop)
    (run / "events.jsonl").write_text("")
    with pytest.raises(StorageError, match="has 0 bytes, but the checkpoint beside it was written"):
        train(run, on_progress=ignore)


def start_program(*arguments):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "secateur", "train", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_step(run, step, program):
    """Return as soon as the events say that a step was taken."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert program.poll() is None, program.stderr.read()
        path = run / "events.jsonl"
        if path.exists() and f'"event": "step", "step": {step},' in path.read_text():
            return
        time.sleep(0.002)
    raise AssertionError(f"step {step} was not reached in time")


@pytest.mark.slow
def test_a_program_stopped_by_ctrl_c_then_killed_for_good_ends_the_same(whole, tmp_path):
    run = create_run(tiny_config(**VARIANTS["long"]), tmp_path / "run")
    program = start_program("--resume", run)
    wait_for_step(run, 7, program)
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=60)
    assert program.returncode == 130
    assert f"Go on with: secateur train --resume {run}" in said
    stopped_at = events(run)[-1]["step"]
    assert 7 <= stopped_at < 75

    program = start_program("--resume", run)
    wait_for_step(run, stopped_at + 7, program)
    program.kill()
    program.communicate(timeout=60)
    assert program.returncode == -signal.SIGKILL
    assert events(run)[-1]["event"] != "end"

    program = start_program("--resume", run)
    _, said = program.communicate(timeout=120)
    assert program.returncode == 0, said
    assert_same(run, whole("long"))
