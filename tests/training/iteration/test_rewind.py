import re

import pytest
import torch

from secateur import iterate
from secateur.errors import UsageError
from secateur.methods.stoppers import Stopper
from secateur.training.iteration import FineTune, Reinitialise, RewindAll, RewindLearningRate
from tests.training.iteration.loops import Loop, same, sgd, small_net, state_of


class Witness(Stopper):
    """Copies the model and the optimizer at the start of every level, after masking."""

    def __init__(self, net, optimizer):
        super().__init__()
        self.net, self.optimizer = net, optimizer
        self.models, self.momenta, self.rates = [], [], []

    def level_begins(self, level):
        self.models.append(state_of(self.net))
        held = [self.optimizer.state[p] for p in self.net.parameters()]
        self.momenta.append([s["momentum_buffer"].clone() for s in held if "momentum_buffer" in s])
        self.rates.append(self.optimizer.param_groups[0]["lr"])

    def should_stop(self, chunks):
        return False


def run(rewind, *, warm_up=1, levels=4):
    net = small_net()
    optimizer = sgd(net)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    witness, ends = Witness(net, optimizer), []
    report = iterate(
        net,
        optimizer,
        Loop(net, optimizer, schedule),
        levels=levels,
        max_chunks=2,
        rewind=rewind,
        warm_up=warm_up,
        stopper=witness,
        also=[schedule],
        on_level=lambda level: ends.append((state_of(net), dict(report_masks(net)))),
    )
    return report, witness, ends


def report_masks(net):
    return {n: p.detach() != 0 for n, p in net.named_parameters() if p.ndim > 1}


def test_every_level_starts_from_the_rewind_point_bit_for_bit():
    """Weights, biases, norms and their statistics; at levels 1, 2 and 3, so that a state which is
    shared with the network instead of copied shows."""
    _, witness, _ = run("all")
    start = witness.models[0]
    assert float(start["1.running_mean"].abs().sum()) > 0
    for level in (1, 2, 3):
        now = witness.models[level]
        for name, value in start.items():
            if value.ndim > 1:
                mask = now[name] != 0
                assert bool((~mask).any()), name
                assert torch.equal(now[name], value * mask), name
            else:
                assert torch.equal(now[name], value), name


def test_momentum_and_learning_rate_return_to_the_rewind_point_too():
    _, witness, _ = run("all")
    assert witness.rates == [0.05] * 4
    names = [name for name, _ in small_net().named_parameters()]
    for level in (1, 2, 3):
        kept = report_masks_of(witness.models[level])
        pairs = zip(names, witness.momenta[0], witness.momenta[level], strict=True)
        for name, first, now in pairs:
            assert torch.equal(now, first * kept[name] if name in kept else first), name


def report_masks_of(state):
    return {n: value != 0 for n, value in state.items() if value.ndim > 1}


def test_without_a_warm_up_levels_start_from_the_first_weights_without_momentum():
    _, witness, _ = run(RewindAll(), warm_up=0)
    first = state_of(small_net())
    assert same(witness.models[0], first)
    assert torch.equal(witness.models[2]["0.bias"], first["0.bias"])
    assert witness.momenta == [[]] * 4


@pytest.mark.parametrize("rewind", ["learning-rate", RewindLearningRate()])
def test_learning_rate_rewinding_keeps_the_weights_and_restores_the_training(rewind):
    _, witness, ends = run(rewind)
    for level in (1, 2, 3):
        trained, now = ends[level - 1][0], witness.models[level]
        for name, value in trained.items():
            mask = now[name] != 0 if value.ndim > 1 else 1
            assert torch.equal(now[name], value * mask), name
        assert witness.rates[level] == 0.05


@pytest.mark.parametrize("rewind", ["none", FineTune()])
def test_fine_tuning_goes_on_with_weights_momentum_and_schedule(rewind):
    _, witness, ends = run(rewind)
    trained, now = ends[0][0], witness.models[1]
    assert torch.equal(now["0.bias"], trained["0.bias"])
    assert witness.rates == [0.1 * 0.5 ** (1 + 2 * level) for level in range(4)]
    assert not torch.equal(witness.momenta[1][1], witness.momenta[0][1])


def test_reinitialising_starts_from_fresh_weights_under_the_same_masks():
    def reset(net):
        net.load_state_dict(small_net(seed=7).state_dict())

    _, witness, _ = run(Reinitialise(reset))
    fresh = state_of(small_net(seed=7))
    now = witness.models[1]
    assert torch.equal(now["0.bias"], fresh["0.bias"])
    assert torch.equal(now["3.weight"], fresh["3.weight"] * (now["3.weight"] != 0))
    assert bool((now["3.weight"] == 0).any())
    assert witness.rates == [0.05] * 4


def test_an_unknown_policy_lists_the_known():
    message = (
        "There is no rewind policy 'late'. Known are all, learning-rate, none; for fresh weights "
        "make a secateur.training.iteration.Reinitialise."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        run("late")
