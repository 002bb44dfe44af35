"""ResRep attached to real trainings of tiny networks."""

import copy
import gc
import json
import subprocess
import sys
import weakref

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur
from secateur.errors import UsageError
from secateur.methods import ResRep
from secateur.training import Session, attach
from tests.clean_room import ROOT
from tests.methods.planted import half_squares, perceptron
from tests.training.scripted import assert_same, weights_of

IMAGES = torch.randn(256, 3, 6, 6, generator=torch.Generator().manual_seed(1))
LABELS = (IMAGES.mean(dim=(1, 2, 3)) > 0).long()


def net(seed: int = 0) -> nn.Sequential:
    """Two convolutions with batch norm, and a head with four positions a channel."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.AvgPool2d(3),
        nn.Flatten(),
        nn.Linear(48, 2),
    )


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, start: int, stop: int, parts: int = 1
) -> None:
    for step in range(start, stop):
        torch.manual_seed(step)
        batch = torch.randint(len(IMAGES), (16,))
        optimizer.zero_grad()
        for part in batch.chunk(parts):
            (F.cross_entropy(model(IMAGES[part]), LABELS[part]) / parts).backward()
        optimizer.step()


def begin(
    model: nn.Module, method: ResRep, steps: int, inputs: Tensor = IMAGES[:2], **settings
) -> tuple[Session, torch.optim.Optimizer]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=1e-3)
    session = attach(model, optimizer, inputs, method=method, total_steps=steps, **settings)
    return session, optimizer


def test_attaching_changes_neither_weights_nor_outputs():
    model = net()
    before, output = weights_of(model), model.eval()(IMAGES).detach()
    begin(model.train(), ResRep(target_macs=0.5), 100)
    assert_same(weights_of(model), before)
    assert torch.equal(model.eval()(IMAGES), output)


class Explicit(nn.Module):
    """A perceptron with a matrix, a parameter of its own, after its hidden units."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.first, self.last = copy.deepcopy(model[0]), copy.deepcopy(model[2])
        self.matrix = nn.Parameter(torch.eye(6, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)) @ self.matrix)


@pytest.mark.parametrize("parts", [1, 2])
def test_without_penalty_it_trains_like_a_network_with_a_matrix_in_it(parts):
    """Also where gradients of several backward passes add up."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    explicit = Explicit(model)
    own = torch.optim.SGD([explicit.matrix], lr=0.02, momentum=0.8)
    rest = [p for name, p in explicit.named_parameters() if name != "matrix"]
    others = torch.optim.SGD(rest, lr=0.02, momentum=0.9, weight_decay=1e-3)
    inputs, labels = torch.randn(32, 5, dtype=torch.float64), torch.arange(32) % 3
    method = ResRep(target_macs=0.5, penalty=0, momentum=0.8, warmup=40)
    _, optimizer = begin(model, method, 100, inputs[:1])
    for _ in range(30):
        optimizer.zero_grad()
        for some, theirs in zip(inputs.chunk(parts), labels.chunk(parts), strict=True):
            (F.cross_entropy(model(some), theirs) / parts).backward()
        optimizer.step()
        own.zero_grad()
        others.zero_grad()
        F.cross_entropy(explicit(inputs), labels).backward()
        own.step()
        others.step()
    assert (explicit.matrix - torch.eye(6)).abs().max() > 0.01
    assert torch.allclose(model(inputs), explicit(inputs), atol=1e-10)
    product = explicit.last.weight @ explicit.matrix.T
    assert torch.allclose(model[2].weight, product, atol=1e-10)


def test_it_lands_on_the_target_and_the_cut_changes_nothing(monkeypatch):
    model = net()
    session, optimizer = begin(model, ResRep(target_macs=0.4), 200)
    seen = []
    cut = session._cut

    def watched(*args, **kwargs):
        model.eval()
        before = model(IMAGES[:8])
        cut(*args, **kwargs)
        seen.append((before, model(IMAGES[:8])))
        model.train()

    monkeypatch.setattr(session, "_cut", watched)
    train(model, optimizer, 0, 160)
    assert session.settled
    assert session.step <= 140
    assert len(seen) == 1
    assert torch.allclose(*seen[0], atol=1e-5)
    assert session.macs_share <= 0.4
    one, two = session.live.counts.tolist()
    macs = session.structure.cost.macs
    more = [macs.value(torch.tensor(c)) / macs.value() for c in ([one + 1, two], [one, two + 1])]
    assert max(more) > 0.4
    assert [m.out_channels for m in model if isinstance(m, nn.Conv2d)] == [one, two]
    assert model[8].in_features == 4 * two
    assert [type(m) for m in model.modules()] == [type(m) for m in net().modules()]


def test_a_useless_unit_is_forgotten_though_it_was_never_chosen():
    torch.manual_seed(3)
    model = perceptron(useful=4, useless=2).double()
    teacher = copy.deepcopy(model)
    inputs = torch.randn(256, 5, dtype=torch.float64)
    method = ResRep(target_macs=0.9, penalty=0.2, momentum=0, warmup=690)
    session, optimizer = begin(model, method, 1000, inputs[:1])
    for _ in range(400):
        optimizer.zero_grad()
        half_squares(model, inputs, teacher(inputs).detach()).backward()
        optimizer.step()
    assert session.step == 400
    assert not any(bool(rows.any()) for rows in session.search.forgotten.values())
    norms = session.search._norms()[0]
    assert norms[4:].tolist() == [0, 0]
    assert norms[:4].min() > 0.01
    assert not model[2].weight[:, 4:].any()


def test_a_resumed_run_continues_bit_for_bit():
    method = ResRep(target_macs=0.5)
    for stop in (30, 120):
        model = net()
        session, optimizer = begin(model, method, 200)
        train(model, optimizer, 0, stop)
        saved = copy.deepcopy((session.state_dict(), model.state_dict(), optimizer.state_dict()))
        train(model, optimizer, stop, 170)
        again = net(seed=9)
        resumed, other = begin(again, method, 200)
        resumed.load_state_dict(saved[0])
        again.load_state_dict(saved[1])
        other.load_state_dict(saved[2])
        train(again, other, stop, 170)
        assert session.settled
        assert resumed.settled
        assert resumed.live.counts.tolist() == session.live.counts.tolist()
        assert_same(weights_of(again), weights_of(model))


def test_a_run_that_has_settled_resumes_too():
    model = net()
    session, optimizer = begin(model, ResRep(target_macs=0.5), 100)
    train(model, optimizer, 0, 80)
    assert session.settled
    state = session.state_dict()
    assert not any("kernel" in name for name in state["search"])
    again = net(seed=9)
    resumed, _ = begin(again, ResRep(target_macs=0.5), 100)
    resumed.load_state_dict(state)
    again.load_state_dict(model.state_dict())
    assert resumed.settled
    assert torch.equal(again.eval()(IMAGES), model.eval()(IMAGES))


def test_what_was_found_is_saved_and_loaded(tmp_path):
    model = net()
    _, optimizer = begin(model, ResRep(target_macs=0.5), 100)
    train(model, optimizer, 0, 80)
    secateur.save(model, tmp_path / "small")
    loaded = secateur.load(net, tmp_path / "small")
    assert torch.equal(loaded.eval()(IMAGES), model.eval()(IMAGES))


def test_detaching_leaves_an_ordinary_network_that_trains_on():
    model = net()
    session, optimizer = begin(model, ResRep(target_macs=0.5), 100)
    train(model, optimizer, 0, 20)
    output = model.eval()(IMAGES).detach()
    session.detach()
    assert torch.equal(model(IMAGES), output)
    train(model.train(), optimizer, 20, 22)


def test_weights_that_were_loaded_before_the_first_step_are_the_kernels():
    model, other = net(), net(seed=5)
    _, optimizer = begin(model, ResRep(target_macs=0.5, penalty=0, momentum=0), 1000)
    model.load_state_dict(other.state_dict())
    optimizer.param_groups[0]["lr"] = 0.0
    train(model, optimizer, 0, 1)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_an_update_that_was_interrupted_leaves_no_kernel_bare():
    model = net()
    session, optimizer = begin(model, ResRep(target_macs=0.5), 100)
    train(model, optimizer, 0, 60)
    before = [parameter.detach().clone() for parameter in model.parameters()]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handle = optimizer.register_step_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(model, optimizer, 60, 61)
    handle.remove()
    assert not torch.equal(model[3].weight, before[3])
    model.eval()(IMAGES[:1])
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    train(model.train(), optimizer, 61, 80)
    assert session.settled


def test_a_step_without_a_forward_neither_trains_compactors_nor_ends_the_search():
    model = net()
    session, optimizer = begin(model, ResRep(target_macs=0.5), 100)
    train(model, optimizer, 0, 10)
    matrix = session.search._compactors.matrices[0]
    before = matrix.clone()
    optimizer.zero_grad()
    with pytest.warns(UserWarning, match="without a training forward"):
        optimizer.step()
    assert torch.equal(matrix, before)
    train(model, optimizer, 10, 80)
    assert session.settled
    assert session.macs_share <= 0.5


def test_a_closure_that_is_evaluated_once_a_step_makes_no_difference():
    def trained(closures: bool) -> nn.Module:
        model = net()
        _, optimizer = begin(model, ResRep(target_macs=0.5), 100)
        for _ in range(80):

            def closure(model=model, optimizer=optimizer) -> Tensor:
                optimizer.zero_grad()
                loss = F.cross_entropy(model(IMAGES[:16]), LABELS[:16])
                loss.backward()
                return loss

            if closures:
                optimizer.step(closure)
            else:
                closure()
                optimizer.step()
        return model

    assert_same(weights_of(trained(True)), weights_of(trained(False)))


@pytest.mark.slow
def test_two_processes_with_different_batches_forget_the_same_units(tmp_path):
    program = [sys.executable, "-m", "tests.training.method_process"]
    processes = [
        subprocess.Popen([*program, str(rank), str(tmp_path), "resrep"], cwd=ROOT)
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert one["own"] != two["own"]
    assert len(one["events"]) == 1
    assert one["events"] == two["events"]
    assert one["weights"] == two["weights"]


def test_an_optimizer_that_evaluates_several_times_a_step_is_refused():
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters())
    attach(model, optimizer, IMAGES[:2], method=ResRep(target_macs=0.5), total_steps=100)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(IMAGES[:16]), LABELS[:16])
        loss.backward()
        return loss

    with pytest.raises(UsageError, match="evaluated its closure more than once"):
        optimizer.step(closure)


def test_once_the_network_is_final_the_copies_of_its_weights_are_let_go():
    model = net()
    session, optimizer = begin(model, ResRep(target_macs=0.5), 60)
    train(model, optimizer, 0, 2)
    kernels = [weakref.ref(kernel) for kernel in session._loop._compactors.kernels.values()]
    train(model, optimizer, 2, 20)
    assert all(kernel() is not None for kernel in kernels)
    train(model, optimizer, 20, 60)
    assert session.settled
    gc.collect()
    assert kernels
    assert all(kernel() is None for kernel in kernels)
