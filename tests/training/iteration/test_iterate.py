import math
import re

import pytest
import torch

import secateur
from secateur.errors import UsageError
from secateur.masks import Masks
from secateur.methods.flows import GradientFlow, InformationFlow
from secateur.methods.mask_rules import MASK_RULES, SAP, GlobalMagnitude
from secateur.methods.stoppers import (
    AccuracyReached,
    AnyOf,
    FixedChunks,
    FlowConsistency,
    LossPlateau,
    RandomStop,
    Stopper,
)
from secateur.training.iteration import Chunk
from secateur.training.iteration._stopwatch import Stopwatch
from tests.training.iteration.loops import Loop, same, sgd, small_net, state_of

NUM_WEIGHTS = 6 * 9 + 8 * 6 * 9 + 4 * 8


def run(stopper=None, *, levels=3, max_chunks=3, **settings):
    net = small_net()
    optimizer = sgd(net)
    loop = Loop(net, optimizer)
    states = []
    if callable(stopper) and not isinstance(stopper, Stopper):
        stopper = stopper(net, loop)
    report = secateur.iterate(
        net,
        optimizer,
        loop,
        levels=levels,
        max_chunks=max_chunks,
        stopper=stopper,
        on_level=lambda level: states.append(state_of(net)),
        **settings,
    )
    return report, states, loop


class PlainIMP:
    """Iterative magnitude pruning, written out: hooks, rewinding and masks of its own."""

    def __init__(self):
        self.net = small_net()
        self.optimizer = sgd(self.net)
        self.loop = Loop(self.net, self.optimizer)
        self.weights = {n: p for n, p in self.net.named_parameters() if p.ndim > 1}
        self.kept = {n: torch.ones_like(w, dtype=torch.bool) for n, w in self.weights.items()}
        self.optimizer.register_step_pre_hook(lambda *_: self.mask(lambda w: w.grad))
        self.optimizer.register_step_post_hook(lambda *_: self.mask(lambda w: w))

    @torch.no_grad()
    def mask(self, part):
        for name, weight in self.weights.items():
            if part(weight) is not None:
                part(weight).masked_fill_(~self.kept[name], 0.0)

    def momentum(self, weight):
        return self.optimizer.state[weight].get("momentum_buffer")

    def train(self, chunks, warm_up=False):
        for number in range(chunks):
            self.loop(Chunk(level=0, number=number, budget=0, total=0, warm_up=warm_up))

    def prune(self):
        pooled = torch.cat([w[self.kept[n]].abs() for n, w in self.weights.items()])
        threshold = pooled.sort().values[math.ceil(len(pooled) / 5)]
        for name, weight in self.weights.items():
            self.kept[name] &= weight.abs() >= threshold

    def rewind(self, state, momenta):
        self.net.load_state_dict(state)
        self.optimizer.state.clear()
        for parameter, momentum in momenta.items():
            self.optimizer.state[parameter]["momentum_buffer"] = momentum.clone()
        self.mask(lambda w: w)
        self.mask(self.momentum)

    def run(self, levels, max_chunks, warm_up):
        self.train(warm_up, warm_up=True)
        start = state_of(self.net)
        momenta = {p: s["momentum_buffer"].clone() for p, s in self.optimizer.state.items()}
        for level in range(levels):
            if level > 0:
                self.prune()
                self.rewind(start, momenta)
            self.train(max_chunks)
            yield state_of(self.net)


@pytest.mark.parametrize("warm_up", [0, 2])
def test_without_a_stopper_it_is_iterative_magnitude_pruning_bit_for_bit(warm_up):
    _, states, _ = run(levels=4, max_chunks=2, warm_up=warm_up)
    expected = PlainIMP().run(4, 2, warm_up)
    assert all(same(ours, theirs) for ours, theirs in zip(states, expected, strict=True))


def information(net, loop, **settings):
    return FlowConsistency(InformationFlow(net, [loop.images]), **settings)


def test_measuring_without_stopping_changes_nothing():
    plain = run()[1]
    measured = run(lambda net, loop: information(net, loop, eps=0.0))[1]
    gradient = run(
        lambda net, loop: FlowConsistency(
            GradientFlow(net, [(loop.images, loop.labels)], loop.loss),
            reference="rewind_point",
            eps=0.0,
        )
    )[1]
    for states in (measured, gradient):
        assert all(same(a, b) for a, b in zip(plain, states, strict=True))


def test_stopping_only_truncates_training():
    """The first level ends as it would have stood after two chunks of the fixed run."""
    states = run(FixedChunks(2), max_chunks=5)[1]
    expected = run(max_chunks=2)[1]
    assert all(same(a, b) for a, b in zip(states, expected, strict=True))


@pytest.mark.parametrize("rule", sorted(MASK_RULES))
def test_masks_are_nested_and_masked_weights_exactly_zero_after_training(rule):
    _, states, _ = run(rule=rule)
    before = None
    for state in states:
        kept = {n: v != 0 for n, v in state.items() if v.ndim > 1}
        if before is not None:
            assert all(bool((kept[n] <= before[n]).all()) for n in kept)
            assert sum(int(m.sum()) for m in kept.values()) < sum(
                int(m.sum()) for m in before.values()
            )
        before = kept


def test_levels_keep_four_fifths_of_the_last():
    report, states, _ = run(levels=4, max_chunks=1)
    counts = [NUM_WEIGHTS]
    for _ in range(3):
        counts.append(counts[-1] - math.ceil(counts[-1] / 5))
    assert [level.num_kept for level in report.levels] == counts
    assert [level.kept_share for level in report.levels] == [c / NUM_WEIGHTS for c in counts]
    nonzero = sum(int((v != 0).sum()) for v in states[-1].values() if v.ndim > 1)
    assert nonzero == counts[-1]


def test_the_loop_is_told_where_it_is():
    _, _, loop = run(levels=2, max_chunks=2, warm_up=1, last_chunks=3)
    told = [(c.level, c.number, c.budget, c.total, c.warm_up) for c in loop.chunks]
    assert told == [
        (0, 0, 1, 0, True),
        (0, 0, 2, 1, False),
        (0, 1, 2, 2, False),
        (1, 0, 3, 3, False),
        (1, 1, 3, 4, False),
        (1, 2, 3, 5, False),
    ]


def test_a_flow_stop_saves_epochs_and_the_report_counts_them():
    """eps of infinity: the dense level spends its budget to become the reference, others one."""
    report, _, _ = run(
        lambda net, loop: information(net, loop, eps=math.inf), max_chunks=4, warm_up=2
    )
    assert report.chunks == (4, 1, 1)
    assert (report.epochs, report.budget_epochs) == (2 + 6, 2 + 12)
    assert report.num_checks == 2
    assert [len(level.readings) for level in report.levels] == [4, 1, 1]
    assert report.levels[1].because.startswith("flow distance 0.")
    assert "8 of 14 epochs were trained." in str(report)


def test_the_last_level_can_be_trained_in_full():
    report, _, _ = run(FixedChunks(1), levels=3, max_chunks=4, last_chunks=3)
    assert report.chunks == (1, 1, 3)
    assert report.budget_epochs == 4 + 4 + 3


def test_every_stopper_keeps_to_the_budget():
    for stopper in (
        lambda net, loop: information(net, loop, eps=0.05),
        lambda net, loop: AccuracyReached(loop.accuracy),
        lambda net, loop: LossPlateau(lambda: 1 - loop.accuracy(), patience=1),
        lambda net, loop: AnyOf(information(net, loop), AccuracyReached(loop.accuracy)),
        lambda net, loop: RandomStop([1, 3, 2]),
    ):
        report, _, _ = run(stopper)
        assert report.epochs <= report.budget_epochs == 9
        assert all(1 <= level.chunks <= 3 for level in report.levels)


def test_the_random_control_spends_what_the_other_run_spent():
    first, _, _ = run(lambda net, loop: AccuracyReached(loop.accuracy, target=0.9), max_chunks=6)
    control, _, _ = run(RandomStop(first.chunks, seed=3), max_chunks=6)
    assert sorted(control.chunks) == sorted(first.chunks)


class Clock:
    """Time that only passes when something says so."""

    now = 0.0

    def __call__(self):
        return self.now


def timed(monkeypatch, stopper, **settings):
    """Each chunk takes 10 seconds, each evaluation 3."""
    clock = Clock()
    monkeypatch.setattr(Stopwatch.__init__, "__defaults__", (clock,))
    net = small_net()

    def spend(seconds, value=None):
        clock.now += seconds
        return value

    return secateur.iterate(
        net,
        sgd(net),
        lambda chunk: spend(10.0),
        levels=3,
        max_chunks=4,
        stopper=stopper(spend),
        evaluate=lambda: spend(3.0, 0.75),
        **settings,
    )


class SpendingFlow:
    def __init__(self, spend):
        self.spend = spend

    def measure(self):
        return self.spend(0.5, torch.ones(2))


def test_the_cost_of_measuring_is_counted_references_included(monkeypatch):
    """One reference and a check in each of two levels, half a second each: 1.5 s of 60 s in six
    epochs of training, which is 0.15 epochs, or 7.5 % of an epoch a check."""
    report = timed(monkeypatch, lambda spend: FlowConsistency(SpendingFlow(spend)))
    assert report.chunks == (4, 1, 1)
    assert [level.measure_seconds for level in report.levels] == [0.5, 0.5, 0.5]
    assert [level.train_seconds for level in report.levels] == [40.0, 10.0, 10.0]
    assert [level.evaluate_seconds for level in report.levels] == [3.0] * 3
    assert [level.mask_seconds for level in report.levels] == [0.0] * 3
    assert report.measure_seconds == 1.5
    assert report.measure_epochs == pytest.approx(0.15)
    assert report.check_share == pytest.approx(0.075)
    assert str(report).splitlines()[-2:] == [
        "6 of 12 epochs were trained. Measuring took 1.50 s, as long as 0.15 epochs: 5.85 epochs "
        "were saved.",
        "A check costs 7.5 % of a training epoch (2 checks).",
    ]


def test_chunks_of_two_epochs_halve_what_an_epoch_takes(monkeypatch):
    report = timed(
        monkeypatch,
        lambda spend: FlowConsistency(SpendingFlow(spend)),
        chunk_epochs=2.0,
        warm_up=1,
    )
    assert report.epochs == 14.0
    assert report.measure_epochs == pytest.approx(14 * 1.5 / 70)


def test_a_table_shows_every_level(monkeypatch):
    report = timed(monkeypatch, lambda spend: FixedChunks(2))
    assert str(report) == (
        "level  weights left  chunks  training  measuring  evaluation  ended because\n"
        "    0      100.00 %  2 of 4   20.00 s     0.00 s        0.75  2 chunks\n"
        "    1       79.92 %  2 of 4   20.00 s     0.00 s        0.75  2 chunks\n"
        "    2       63.90 %  2 of 4   20.00 s     0.00 s        0.75  2 chunks\n"
        "6 of 12 epochs were trained. Measuring took 0.00 s, as long as 0.00 epochs: 6.00 epochs "
        "were saved."
    )


def test_tensors_that_a_rule_emptied_are_named():
    net = torch.nn.Sequential(torch.nn.Linear(4, 10), torch.nn.Linear(10, 4))
    with torch.no_grad():
        net[1].weight.mul_(1e-6)
    report = secateur.iterate(
        net,
        sgd(net),
        lambda chunk: None,
        levels=3,
        max_chunks=1,
        rule=GlobalMagnitude(share=0.5),
    )
    assert [level.emptied for level in report.levels] == [(), ("1.weight",), ("1.weight",)]
    assert "Nothing is left of 1.weight from level 1 on." in str(report)


def test_masks_of_one_s_own_leave_the_other_tensors_alone():
    net = small_net()
    optimizer = sgd(net)
    masks = Masks(net, optimizer, ["3.weight"])
    report = secateur.iterate(
        net, optimizer, Loop(net, optimizer), levels=3, max_chunks=1, masks=masks, rule=SAP()
    )
    assert report.masks is masks
    assert bool((net[0].weight != 0).all())
    assert report.levels[-1].num_kept == int((net[3].weight != 0).sum()) < 8 * 6 * 9


def test_masks_still_hold_afterwards():
    report, _, loop = run(levels=2, max_chunks=1)
    kept = {name: weight != 0 for name, weight in report.masks.weights.items()}
    loop(loop.chunks[0])
    assert all(torch.equal(report.masks.weights[n] != 0, kept[n]) for n in kept)
    report.masks.detach()
    loop(loop.chunks[0])
    assert all(bool((weight != 0).all()) for weight in report.masks.weights.values())


def test_a_training_loop_that_fails_leaves_no_hooks():
    net = small_net()
    optimizer = sgd(net)

    def fail(chunk):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        secateur.iterate(net, optimizer, fail, levels=2, max_chunks=1)
    assert not optimizer._optimizer_step_post_hooks
    assert not net[0].weight._post_accumulate_grad_hooks


def test_equal_seeds_draw_equal_masks():
    first, second, other = (
        run(rule="random", seed=seed, levels=2, max_chunks=1)[1][-1] for seed in (0, 0, 1)
    )
    assert same(first, second)
    assert not torch.equal(first["3.weight"] != 0, other["3.weight"] != 0)


def test_all_processes_do_what_the_first_one_says(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "gloo")
    monkeypatch.setattr(torch.distributed, "broadcast", lambda said, src: said.fill_(0))
    report, _, _ = run(FixedChunks(1), levels=2, max_chunks=3)
    assert report.chunks == (3, 3)
    assert [level.because for level in report.levels] == ["", ""]


@pytest.mark.parametrize(
    "settings", [{"levels": 0}, {"max_chunks": 0}, {"warm_up": -1}, {"last_chunks": 0}], ids=str
)
def test_settings_out_of_range_are_refused(settings):
    given = {"levels": 3, "max_chunks": 3, "warm_up": 0, "last_chunks": None, **settings}
    message = (
        f"iterate got levels={given['levels']}, max_chunks={given['max_chunks']}, "
        f"warm_up={given['warm_up']} and last_chunks={given['last_chunks']}. It needs at least one "
        "level, the dense one, and one chunk of training in each; warm_up counts from 0."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        run(**settings)


def test_information_flow_finds_the_trained_network_closer_than_the_untrained():
    """Not a promise of the method: a check that distance, reference and levels are wired up."""
    report, _, _ = run(lambda net, loop: information(net, loop, eps=0.0), levels=2, max_chunks=8)
    distances = [reading["flow distance"] for reading in report.levels[1].readings]
    assert distances[-1] < distances[0]
