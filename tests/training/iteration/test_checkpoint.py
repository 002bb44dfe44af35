import copy
import re

import pytest
import torch

import secateur
from secateur.errors import StorageError, UsageError
from secateur.methods.flows import InformationFlow
from secateur.methods.stoppers import AccuracyReached, AnyOf, FlowConsistency
from tests.training.iteration.loops import Loop, same, sgd, small_net, state_of


class KillError(Exception):
    pass


class Restless(Loop):
    """Draws from torch's global generator as it goes, and is killed after some chunks."""

    def __init__(self, *parts, kill_after=None):
        super().__init__(*parts)
        self.kill_after = kill_after

    def __call__(self, chunk):
        if len(self.chunks) == self.kill_after:
            raise KillError
        self.chunks.append(chunk)
        for index in torch.randperm(len(self.labels)).split(16):
            self.optimizer.zero_grad()
            self.loss(self.net, (self.images[index], self.labels[index])).backward()
            self.optimizer.step()
        self.schedule.step()


def run(folder, kill_after=None, **settings):
    """A new process, as far as objects go."""
    net = small_net()
    optimizer = sgd(net)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    loop = Restless(net, optimizer, schedule, kill_after=kill_after)
    flow = InformationFlow(net, [loop.images])
    stopper = AnyOf(
        FlowConsistency(flow, eps=0.03, patience=2), AccuracyReached(loop.accuracy, patience=2)
    )
    settings = {"levels": 4, "max_chunks": 3, "rule": "random", "warm_up": 1, **settings}
    try:
        report = secateur.iterate(
            net, optimizer, loop, stopper=stopper, also=[schedule], checkpoint=folder, **settings
        )
    except KillError:
        return None
    return report, state_of(net), copy.deepcopy(optimizer.state_dict()), loop


def without_seconds(report):
    return [(r.number, r.num_kept, r.chunks, r.because, r.readings) for r in report.levels]


@pytest.mark.parametrize("kill_after", [3, 5, 8])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, kill_after):
    torch.manual_seed(3)
    report, state, optimizer, loop = run(None)
    assert len(loop.chunks) > 8
    torch.manual_seed(3)
    assert run(tmp_path, kill_after) is None
    # Before the end of the first level nothing is saved, and the run begins again.
    torch.manual_seed(3 if kill_after < 4 else 99)
    resumed, again, optimizer_again, second_loop = run(tmp_path)
    assert same(state, again)
    assert without_seconds(resumed) == without_seconds(report)
    assert second_loop.chunks == loop.chunks[-len(second_loop.chunks) :]
    for number, entry in optimizer["state"].items():
        momentum = optimizer_again["state"][number]["momentum_buffer"]
        assert torch.equal(entry["momentum_buffer"], momentum)
    assert optimizer["param_groups"] == optimizer_again["param_groups"]


def test_a_finished_run_trains_nothing_again(tmp_path):
    report, state, _, _ = run(tmp_path)
    again, restored, _, loop = run(tmp_path)
    assert loop.chunks == []
    assert same(state, restored)
    assert [level.train_seconds for level in again.levels] == [
        level.train_seconds for level in report.levels
    ]
    assert again.warm_up_seconds == report.warm_up_seconds
    assert all(torch.equal(again.masks.kept[n], mask) for n, mask in report.masks.kept.items())


def test_other_settings_are_refused(tmp_path):
    run(tmp_path)
    message = (
        f"The checkpoint in {tmp_path} is of a run with levels=4 instead of 5, "
        "rule='RandomWeights' instead of 'SAP'. Go on with the settings it was begun with, or name "
        "another folder."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        run(tmp_path, levels=5, rule="sap")


def test_a_damaged_checkpoint_is_refused(tmp_path):
    run(tmp_path)
    (tmp_path / "checkpoint" / "state.json").write_text("{}")
    with pytest.raises(StorageError, match="is damaged"):
        run(tmp_path)
