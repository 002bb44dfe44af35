"""The clean room notices what a test leaves behind, and puts it back."""

import os
import threading
from pathlib import Path

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

from tests import clean_room
from tests.clean_room import Snapshot


def test_a_test_that_changes_nothing_is_not_blamed():
    before = Snapshot.take()
    torch.rand(3)
    assert before.complaints() == []


def test_the_random_generator_of_torch_is_put_back():
    before = Snapshot.take()
    first = torch.rand(3)
    before.restore()
    assert torch.equal(torch.rand(3), first)


def test_a_changed_environment_is_named_and_put_back():
    before = Snapshot.take()
    os.environ["SECATEUR_LEFT_BEHIND"] = "x"
    home = os.environ.pop("PATH")
    complaints = before.complaints()
    before.restore()
    assert complaints == [
        f"environment variable PATH was {home!r} and is None",
        "environment variable SECATEUR_LEFT_BEHIND was None and is 'x'",
    ]
    assert before.complaints() == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            lambda: torch.set_default_dtype(torch.float64),
            "default dtype was torch.float32 and is torch.float64",
        ),
        (lambda: torch.set_num_threads(2), "number of torch threads was 1 and is 2"),
        (lambda: torch.set_grad_enabled(False), "gradient mode was True and is False"),
        (
            lambda: torch.use_deterministic_algorithms(True),
            "deterministic algorithms was False and is True",
        ),
    ],
)
def test_a_changed_setting_of_torch_is_named_and_put_back(change, complaint):
    before = Snapshot.take()
    change()
    complaints = before.complaints()
    before.restore()
    assert complaints == [complaint]
    assert before.complaints() == []


def test_a_changed_working_directory_is_named_and_put_back(tmp_path):
    before = Snapshot.take()
    home = Path.cwd()
    os.chdir(tmp_path)
    complaints = before.complaints()
    before.restore()
    assert f"working directory was {str(home)!r} and is {str(tmp_path)!r}" in complaints
    assert Path.cwd() == home


def test_a_thread_that_still_runs_is_named(monkeypatch):
    monkeypatch.setattr(clean_room, "PATIENCE_SECONDS", 0.05)
    before = Snapshot.take()
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="loader")
    thread.start()
    complaints = before.complaints()
    release.set()
    thread.join()
    assert complaints == ["thread 'loader' still runs"]
    assert before.complaints() == []


def test_a_global_hook_that_stays_is_named():
    before = Snapshot.take()
    hook = register_module_forward_pre_hook(lambda module, inputs: None)
    complaints = before.complaints()
    hook.remove()
    assert complaints == [
        "torch.nn.modules.module._global_forward_pre_hooks was 0 and is 1",
    ]


def test_a_dispatch_mode_that_stays_is_named():
    before = Snapshot.take()
    with TorchDispatchMode():
        complaints = before.complaints()
    assert complaints == ["torch dispatch modes was 0 and is 1"]


def test_a_file_left_in_the_working_directory_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = Snapshot.take()
    (tmp_path / "forgotten.txt").touch()
    assert before.complaints() == ["file forgotten.txt was left behind"]
