"""AOFP attached to real trainings of tiny networks."""

import copy
import json
import math
import subprocess
import sys

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional as F

from secateur.errors import UsageError
from secateur.gates import Ablation, Damage, DamageMeter
from secateur.methods import AOFP
from secateur.methods._halving import fitted_damage
from secateur.methods._move import Move
from secateur.structure import trace
from secateur.training import Session, attach
from tests.clean_room import ROOT
from tests.methods.planted import data_of, half_squares, perceptron
from tests.training.scripted import assert_same, weights_of

IMAGES = torch.randn(256, 3, 6, 6, generator=torch.Generator().manual_seed(1))
LABELS = (IMAGES.mean(dim=(1, 2, 3)) > 0).long()


class Net(nn.Module):
    """A stream with one branch, batch norm, dropout, and a head with four positions a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.up = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(12)
        self.down = nn.Conv2d(12, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = x + self.bn2(self.down(torch.relu(self.bn1(self.up(self.drop(x))))))
        return self.head(self.pool(x).flatten(1))


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, start: int, stop: int, size: int = 16
) -> list[float]:
    losses = []
    for step in range(start, stop):
        torch.manual_seed(step)
        batch = torch.randint(len(IMAGES), (size,))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(IMAGES[batch]), LABELS[batch])
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def begin(model: nn.Module, method: AOFP, steps: int, lr: float = 0.02, **settings):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    session = attach(model, optimizer, IMAGES[:2], method=method, total_steps=steps, **settings)
    return session, optimizer


def widths(session: Session) -> list[int]:
    return session.live.counts.tolist()


def test_until_the_first_removal_training_is_the_same_bit_for_bit():
    plain, watched = net(), net()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.02, momentum=0.9)
    losses = train(plain, optimizer, 0, 30)
    session, optimizer = begin(
        watched, AOFP(tolerance=1e-12, steps_per_half=3, warmup=2, settle_at=1), 40
    )
    assert train(watched, optimizer, 0, 30) == losses
    assert any(move.failures for move in session.search.moves)
    assert_same(weights_of(watched), weights_of(plain))


def test_the_user_s_evaluation_is_not_measured():
    model = net()
    session, optimizer = begin(model, AOFP(steps_per_half=3, warmup=0), 40)
    train(model, optimizer, 0, 3)
    before = copy.deepcopy(session.search.state_dict())
    with torch.no_grad():
        model(IMAGES[:4])
    model.eval()
    model(IMAGES[:4])
    assert torch.equal(session.search.state_dict()["generator"], before["generator"])


@pytest.mark.parametrize(("tolerance", "target"), [(0.01, 0.6), (math.inf, 0.75)])
def test_it_stops_at_the_first_unit_that_reaches_the_target(tolerance, target):
    """With an endless tolerance the last move would take half a family."""
    model = net()
    method = AOFP(tolerance=tolerance, target_macs=target, steps_per_half=2, warmup=4)
    session, optimizer = begin(model, method, 200)
    train(model, optimizer, 0, 160)
    assert session.settled
    assert session.macs_share <= target
    last = next(event for event in reversed(session.events) if event["event"] == "remove")
    macs, counts = session.structure.cost.macs, session.live.counts
    one_more = [
        macs.value(counts + torch.eye(2, dtype=torch.int64)[number]) / macs.value()
        for number, family in enumerate(session.structure.families)
        if family.name in last["units"]
    ]
    assert min(one_more) > target


def test_the_network_shrinks_while_the_search_runs():
    model = net()
    session, optimizer = begin(model, AOFP(tolerance=0.3, steps_per_half=2, warmup=4), 200)
    train(model, optimizer, 0, 12)
    assert not session.settled
    assert sum(widths(session)) < 20
    assert model.up.out_channels == len(model.bn1.weight) == model.down.in_channels
    assert widths(session)[1] == model.up.out_channels


def test_dead_units_go_and_live_ones_stay():
    model = net()
    with torch.no_grad():
        # Neither weights nor momentum bring them back: what makes them is zero, too.
        for weight in (model.up.weight, model.bn1.weight, model.bn1.bias):
            weight[[1, 4, 7]] = 0
        model.down.weight[:, [1, 4, 7]] = 0
    session, optimizer = begin(
        model, AOFP(tolerance=1e-9, steps_per_half=4, warmup=0, settle_at=1), 300, lr=0.0
    )
    train(model, optimizer, 0, 200)
    gone = (~session.live.units[1]).nonzero().flatten().tolist()
    assert gone == [1, 4, 7]
    assert bool(session.live.units[0].all())


def test_what_is_left_computes_what_the_network_without_these_units_computed():
    model = net().double()
    images = IMAGES[:16].double()
    whole = copy.deepcopy(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    session = attach(
        model,
        optimizer,
        images[:2],
        method=AOFP(tolerance=0.5, steps_per_half=2, warmup=0),
        total_steps=80,
    )
    for _ in range(60):
        model(images).sum().backward()
        optimizer.step()
    assert sum(widths(session)) < 20
    with torch.no_grad():
        for family, live in zip(session.structure.families, session.live.units, strict=True):
            for member in family.members:
                if member.consumes:
                    weight = whole.get_parameter(member.tensor)
                    weight.index_fill_(member.axis, member.index[~live].flatten(), 0.0)
    for module in (model, whole):
        module.drop.p = 0.0
    torch.testing.assert_close(model(images), whole(images), rtol=0, atol=1e-12)


def test_decisions_come_every_half_and_families_begin_one_after_another():
    model = net()
    session, optimizer = begin(
        model, AOFP(tolerance=1e-12, steps_per_half=9, warmup=5, settle_at=1), 200
    )
    train(model, optimizer, 0, 1)
    moves = session.search.moves
    assert [move.start for move in moves] == [5, 9]
    seen = []
    for step in range(1, 40):
        spaces = [int(move.space.sum()) for move in moves]
        train(model, optimizer, step, step + 1)
        seen += [
            (session.step, family)
            for family, move in enumerate(moves)
            if int(move.space.sum()) != spaces[family]
        ]
    # The stream of 8 is halved by masks; of the branch all halves are known at once.
    assert [step for step, family in seen if family == 0] == [14, 23, 32]
    assert moves[1].is_quadratic
    assert moves[1].failures == 2
    assert moves[1].start > session.step


def test_a_family_keeps_its_least_number_of_units():
    model = net()
    session, optimizer = begin(
        model, AOFP(tolerance=math.inf, steps_per_half=1, warmup=0, min_units=3), 200
    )
    train(model, optimizer, 0, 100)
    assert widths(session) == [3, 3]
    assert session.settled


def test_without_a_target_it_ends_when_every_family_has_given_up():
    model = net()
    session, optimizer = begin(
        model, AOFP(tolerance=1e-12, steps_per_half=1, warmup=0, settle_at=1), 400
    )
    train(model, optimizer, 0, 200)
    assert session.settled
    assert session.step < 100


def test_a_killed_run_continues_bit_for_bit():
    method = AOFP(tolerance=0.2, steps_per_half=5, warmup=3)
    model = net()
    session, optimizer = begin(model, method, 120)
    train(model, optimizer, 0, 43)
    assert sum(widths(session)) < 20
    saved = copy.deepcopy((session.state_dict(), weights_of(model), optimizer.state_dict()))
    train(model, optimizer, 43, 100)
    again = net(seed=5)
    resumed, other = begin(again, method, 120)
    resumed.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    other.load_state_dict(saved[2])
    train(again, other, 43, 100)
    assert widths(resumed) == widths(session)
    assert_same(weights_of(again), weights_of(model))


def test_equal_seeds_find_equal_networks_and_others_draw_others():
    def found(seed: int) -> tuple[list[int], torch.Tensor]:
        model = net()
        session, optimizer = begin(
            model, AOFP(tolerance=0.2, steps_per_half=5, warmup=3), 120, seed=seed
        )
        train(model, optimizer, 0, 60)
        return [event for event in session.events if event["event"] == "remove"], session

    def plain(events: list) -> list:
        return [{k: v for k, v in event.items() if k != "seconds"} for event in events]

    one, two = found(1), found(1)
    assert one[0]
    assert plain(one[0]) == plain(two[0])
    states = [entry[1].search.state_dict()["generator"] for entry in (one, found(2))]
    assert not torch.equal(*states)


def test_a_compiled_model_is_measured_like_the_plain_one():
    def moments(wrap) -> tuple[torch.Tensor, torch.Tensor]:
        model = net()
        model.drop.p = 0.0
        wrapper = wrap(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
        method = AOFP(tolerance=1e-12, steps_per_half=50, warmup=0)
        session = attach(wrapper, optimizer, IMAGES[:2], method=method, total_steps=200)
        train(wrapper, optimizer, 0, 4)
        return session.search.moves[0].moment, session.search.moves[0].cross

    plain = moments(lambda model: model)
    compiled = moments(lambda model: torch.compile(model, backend="eager"))
    assert bool(plain[1].any())
    assert torch.equal(compiled[0], plain[0])
    torch.testing.assert_close(compiled[1], plain[1])


def test_under_autocast_the_user_s_gradients_are_those_of_a_plain_training():
    def gradients(attached: bool) -> list[torch.Tensor]:
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        if attached:
            method = AOFP(tolerance=1e-12, steps_per_half=50, warmup=0)
            attach(model, optimizer, IMAGES[:2], method=method, total_steps=200)
        torch.manual_seed(0)
        for _ in range(2):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = F.cross_entropy(model(IMAGES[:16]), LABELS[:16])
            loss.backward()
            optimizer.step()
        return [parameter.grad for parameter in model.parameters()]

    for ours, theirs in zip(gradients(True), gradients(False), strict=True):
        assert torch.equal(ours, theirs)


def test_accumulated_batches_of_a_step_are_all_measured():
    model = net()
    session, optimizer = begin(model, AOFP(tolerance=1e-12, steps_per_half=50, warmup=0), 200)
    train(model, optimizer, 0, 1)
    moment = session.search.moves[0].moment
    optimizer.zero_grad()
    for part in IMAGES[:32].split(8):
        model(part).sum().backward()
    optimizer.step()
    # Four batches of 8 samples, four masks a sample, half of the 8 units each.
    assert moment.diagonal().sum() == 4 * 8 * 4 * 4


def last_damage(monkeypatch) -> Damage:
    """Train for 30 steps in which nothing moves; return what the search was last told."""
    model, told = net(), []
    method = AOFP(tolerance=1e-12, steps_per_half=50, warmup=0)
    session, optimizer = begin(model, method, 200, lr=0.0)
    with monkeypatch.context() as patch:
        observe = session.search.observe_damage
        patch.setattr(
            session.search, "observe_damage", lambda a, d: (told.append(d), observe(a, d))
        )
        train(model, optimizer, 0, 30)
    return told[-1]


def test_all_processes_take_the_sum_of_what_they_measured(monkeypatch):
    one = last_damage(monkeypatch)
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        # As if another process had measured the same.
        monkeypatch.setattr(distributed, "all_reduce", lambda tensor: tensor.mul_(2))
        two = last_damage(monkeypatch)
    finally:
        distributed.destroy_process_group()
    assert bool(one.change_VRF.any())
    assert bool(one.grams[1].any())
    assert torch.equal(two.change_VRF, 2 * one.change_VRF)
    assert torch.equal(two.energy_RF, 2 * one.energy_RF)
    assert torch.equal(two.grams[1], 2 * one.grams[1])
    assert torch.equal(two.gram_energy[1], 2 * one.gram_energy[1])


@pytest.mark.slow
def test_two_processes_with_different_batches_remove_the_same_units_at_the_same_steps(tmp_path):
    program = [sys.executable, "-m", "tests.training.method_process"]
    processes = [
        subprocess.Popen([*program, str(rank), str(tmp_path), "aofp"], cwd=ROOT)
        for rank in range(2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    one, two = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert one["own"] != two["own"]
    assert len(one["events"]) > 1
    assert one["events"] == two["events"]
    assert one["weights"] == two["weights"]


def test_mean_damage_agrees_with_the_true_rise_of_the_loss():
    """On a network that is the truth behind its data: the loss without a unit, unit by unit."""
    torch.manual_seed(0)
    model = perceptron(useful=16, useless=0)
    images, targets = next(data_of(model, num_inputs=5, batch=512))
    structure = trace(model, images[:1])
    rises = []
    with torch.no_grad():
        base = half_squares(model, images, targets)
        for unit in range(16):
            kept = model[2].weight.clone()
            model[2].weight[:, unit] = 0
            rises.append(float(half_squares(model, images, targets) - base))
            model[2].weight.copy_(kept)
    masks, generator = Move(16, "cpu"), torch.Generator().manual_seed(0)
    meter = DamageMeter(model, structure, structure.everything())
    for _ in range(4):
        off_VRU = torch.stack(masks.masks(512, generator))
        ablation = Ablation(off_VRU=off_VRU, sampled=frozenset({0}))
        damage = meter.measure(ablation, lambda: model(images), 512)
        for off_RU, change_RF in zip(off_VRU, damage.change_VRF, strict=True):
            masks.take_masks(off_RU, change_RF[:, 0], damage.energy_RF[:, 0])
    found = fitted_damage(masks.moment, masks.cross)
    ranks = torch.stack([found, torch.tensor(rises).double()]).argsort(dim=1).argsort(dim=1)
    assert torch.corrcoef(ranks.double())[0, 1] > 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": -1}, "not a relative damage"),
        ({"tolerance": 0, "target_macs": 0.5}, "not a relative damage"),
        ({"tolerance": math.nan}, "not a relative damage"),
        ({"target_macs": 1.0}, r"outside \(0, 1\)"),
        ({"settle_at": 0}, r"outside \(0, 1\]"),
        ({"masks_per_half": 1}, "give at least masks_per_half=2"),
        ({"steps_per_half": 0}, "give at least steps_per_half=1"),
        ({"warmup": -1}, "give at least warmup=0"),
        ({"min_units": 0}, "give at least min_units=1"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        AOFP(**settings)


def test_a_run_that_is_too_short_is_refused():
    with pytest.raises(UsageError, match="Train longer"):
        begin(net(), AOFP(steps_per_half=50), 60)


def test_a_target_below_the_smallest_network_is_refused():
    with pytest.raises(UsageError, match="cannot be reached"):
        begin(net(), AOFP(target_macs=0.01, min_units=4), 200)
