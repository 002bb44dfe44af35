"""Whole runs on networks of which it is known what is useful."""

import copy

import pytest
import torch

from secateur.methods import ComplexityAware, Draw, Estimator
from secateur.structure import Decision
from tests.methods.loop import train
from tests.methods.planted import Residual, begin, data_of, half_squares, perceptron, traced
from tests.structures import residual


def run(model, method, num_steps, *, lr=0.01, num_inputs, seed=0, after_step=None):
    structure = traced(model, num_inputs)
    search = begin(method, structure, num_steps, seed)
    train(
        model,
        structure,
        search,
        torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9),
        half_squares,
        data_of(model, num_inputs),
        num_steps,
        after_step or (lambda step: None),
    )
    return structure, search


def left(search, structure):
    kept = ~search._gone_S
    return kept[: structure.num_units], kept[structure.num_units :]


def feed(search, structure, num_steps, unit=0.0, layer=0.0):
    """Steps in which every gate gradient is the same."""
    for _ in range(num_steps):
        draw = search.draw()
        search.probe()
        search.observe(
            torch.full((structure.num_units,), unit),
            torch.full((structure.num_layers,), layer),
            draw,
            8,
        )


@pytest.mark.parametrize("seed", range(3))
def test_exactly_the_useless_units_go(seed):
    torch.manual_seed(seed)
    model = perceptron(useful=6, useless=4)
    # A unit costs 0.1 nats / 10; the useful ones lower the loss by 0.018 nats or more.
    structure, search = run(model, ComplexityAware(price=0.1), 600, num_inputs=5, seed=seed)
    units, _ = left(search, structure)
    assert units.tolist() == [True] * 6 + [False] * 4


@pytest.mark.parametrize("estimator", [Estimator.CURVATURE_CORRECTED, Estimator.TRAPEZOID])
def test_every_estimator_but_the_first_order_one_finds_the_useless_units(estimator):
    torch.manual_seed(0)
    model = perceptron(useful=6, useless=4)
    method = ComplexityAware(price=0.1, estimator=estimator)
    structure, search = run(model, method, 600, num_inputs=5)
    assert left(search, structure)[0].tolist() == [True] * 6 + [False] * 4


@pytest.mark.parametrize("useless", ["one", "two"])
def test_the_useless_block_goes_and_the_vital_one_stays(useless):
    torch.manual_seed(1)
    model = Residual()
    with torch.no_grad():
        for name, branch in (("one", model.one), ("two", model.two)):
            branch.down.weight.normal_(std=0.0 if name == useless else 1.5)
            branch.down.bias.zero_()
    # A block costs 2 · 0.1 · 48 / 144 = 0.067 nats; the vital one lowers the loss by 0.13.
    method = ComplexityAware(price=0.1, layer_share=1.0)
    structure, search = run(model, method, 600, num_inputs=6)
    units, layers = left(search, structure)
    assert layers.tolist() == [useless != "one", useless != "two"]
    assert [layer.name for layer in structure.layers] == ["one", "two"]
    # Units go with their block and not otherwise.
    gone = 6 if useless == "one" else 10
    assert (~units).nonzero().flatten().tolist() == list(range(gone, gone + 4))


def test_price_zero_trains_bit_for_bit_like_plain_training():
    torch.manual_seed(3)
    first = perceptron(useful=3, useless=2)
    second = copy.deepcopy(first)
    before = torch.get_rng_state()
    _, search = run(first, ComplexityAware(price=0), 40, num_inputs=5)
    assert torch.equal(torch.get_rng_state(), before)
    optimizer = torch.optim.SGD(second.parameters(), lr=0.01, momentum=0.9)
    batches = data_of(second, 5)
    for _ in range(40):
        optimizer.zero_grad()
        half_squares(second, *next(batches)).backward()
        optimizer.step()
    for one, two in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, two)
    assert search.settled
    assert not search.decide()
    fresh = torch.Generator().manual_seed(0).get_state()
    assert torch.equal(search._generator.get_state(), fresh)


def test_no_random_number_of_the_process_is_used_at_any_price():
    torch.manual_seed(3)
    model = Residual()
    before = torch.get_rng_state()
    run(model, ComplexityAware(price=0.5), 200, num_inputs=6)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("layer_share", [0.0, 1.0])
def test_a_kind_of_structure_without_a_price_is_never_touched(layer_share):
    structure = residual().structure
    search = begin(ComplexityAware(price=5.0, layer_share=layer_share), structure, 400)
    for _ in range(400):
        draw, probe = search.draw(), search.probe()
        for gates in (draw, probe):
            if gates is not None:
                assert (gates.layers_L if layer_share == 0 else gates.units_U).all()
        search.observe(torch.zeros(12), torch.zeros(2), draw, 8)
    decision = search.decide()
    assert decision
    assert not (decision.layers if layer_share == 0 else decision.units)


def test_with_a_constant_loss_all_reach_zero_together_and_every_family_keeps_a_unit():
    structure = residual().structure
    method = ComplexityAware(price=0.3, layer_share=0.0, patience=30, warmup=20, hold=10)
    search = begin(method, structure, 400)
    assert search.draw() is None
    feed(search, structure, 20)
    assert search.record()["expected_macs_share"] == 1
    feed(search, structure, 29)
    assert (search._level_S[:12] > 0).all()
    feed(search, structure, 1)
    assert (search._level_S[:12] == 0).all()
    assert not search.decide()
    feed(search, structure, 15)
    # One unit of 4, 3 and 5 stays.
    assert {f: len(units) for f, units in search.decide().units.items()} == {0: 3, 1: 2, 2: 4}


def test_every_draw_leaves_a_unit_on_in_every_family():
    structure = residual().structure
    method = ComplexityAware(price=0.3, layer_share=0.0, patience=10, warmup=0, hold=200)
    search = begin(method, structure, 400)
    for _ in range(200):
        draw = search.draw()
        if draw is not None:
            assert [bool(part.any()) for part in draw.units_U.split([4, 3, 5])] == [True] * 3
        search.observe(torch.zeros(12), torch.zeros(2), draw, 8)


def test_draws_have_the_probabilities_they_should_have():
    structure = residual().structure
    search = begin(ComplexityAware(price=0.3, patience=1000, warmup=0), structure, 9000)
    feed(search, structure, 400)
    chance = search._chance().clone()
    state = search.state_dict()
    total = torch.zeros(14)
    for _ in range(2000):
        search.load_state_dict(state | {"generator": search._generator.get_state()})
        search.step = 401  # not a step that probes
        draw = search.draw()
        total += torch.cat([draw.units_U, draw.layers_L])
    # Standard error of a share of 0.6 over 2000 draws: 0.011.
    torch.testing.assert_close(total / 2000, chance.float(), rtol=0, atol=0.05)


def test_units_of_a_closed_layer_are_not_judged():
    structure = residual().structure
    search = begin(ComplexityAware(price=0.3, patience=50, warmup=0), structure, 400)
    closed = Draw(units_U=torch.ones(12, dtype=torch.bool), layers_L=torch.tensor([False, True]))
    for _ in range(10):
        search.observe(torch.zeros(12), torch.zeros(2), closed, 8)
    assert search._level_S.tolist() == [40.0] * 4 + [50.0] * 3 + [40.0] * 5 + [40.0] * 2


def test_a_gradient_that_is_not_finite_says_nothing():
    structure = residual().structure
    search = begin(ComplexityAware(price=0.3, patience=50, warmup=0), structure, 400)
    bad = torch.zeros(12)
    bad[2], bad[3] = torch.nan, torch.inf
    search.observe(bad, torch.zeros(2), None, 8)
    assert search._level_S[:5].tolist() == [49.0, 49.0, 50.0, 50.0, 49.0]
    assert search._statistics.rise().isfinite().all()


def test_what_is_gone_is_neither_drawn_nor_priced_nor_counted():
    structure = residual().structure
    search = begin(ComplexityAware(price=0.3, patience=40, warmup=0), structure, 400)
    search.removed(Decision(units={0: torch.tensor([1])}, layers=(0,)))
    feed(search, structure, 30)
    draw = search.draw()
    assert draw.units_U[[1, 4, 5, 6]].all()
    assert draw.layers_L[0]
    assert search._price_S[[1, 4, 5, 6, 12]].tolist() == [0] * 5
    assert search._chance()[[1, 4, 5, 6, 12]].tolist() == [0] * 5
    record = search.record()
    assert record["theta"]["conv0"][-1] == 3
    assert record["theta"]["block1.conv1"] == [0, 0, 0, 0, 0, 0]
    assert record["phi"]["block1"] == 0
    feed(search, structure, 200)
    assert 1 not in search.decide().units[0]
    assert 1 not in search.decide().units
    assert search.decide().layers == (1,)


def test_a_decision_stands_until_it_is_carried_out():
    structure = residual().structure
    method = ComplexityAware(price=0.3, layer_share=0.0, patience=10, warmup=0, hold=5)
    search = begin(method, structure, 400)
    feed(search, structure, 30)
    first = search.decide()
    # Useful by now, and too late: what was decided may be under the knife.
    feed(search, structure, 30, unit=-5.0)
    assert search.decide().units[0].tolist() == first.units[0].tolist()
    search.removed(first)
    assert not search.decide()


def test_removing_pays_for_a_tenth_of_the_macs_or_at_the_end_of_an_epoch():
    structure = residual().structure
    search = begin(ComplexityAware(price=0.3), structure, 400)  # epochs of 10 steps
    live = structure.everything()
    # MACs: stem 2·36·27·4 + head 24 = 7800, blocks 2·36·18·4·(3 + 5) = 41472; a unit of a
    # block is 5184 of 49272, 10.5 %.
    one_unit, nothing = Decision(units={2: torch.tensor([0])}), Decision()
    feed(search, structure, 1)
    assert search.should_cut(live, one_unit)
    assert not search.should_cut(live, nothing)
    feed(search, structure, 9)
    assert not search.should_cut(live, nothing)


def test_a_small_removal_waits_for_the_end_of_the_epoch():
    structure = traced(perceptron(10, 10), 5)  # a unit is 5 %
    search = begin(ComplexityAware(price=0.3), structure, 400)
    one = Decision(units={0: torch.tensor([3])})
    feed(search, structure, 9)
    assert not search.should_cut(structure.everything(), one)
    feed(search, structure, 1)
    assert search.should_cut(structure.everything(), one)


def test_settling_rounds_every_probability_and_ends_the_gates():
    structure = residual().structure
    method = ComplexityAware(price=0.3, layer_share=0.0, patience=100, warmup=0, settle_at=0.5)
    search = begin(method, structure, 240)
    feed(search, structure, 119)
    # All are below 0.5 by now, and nothing has been at 0 long enough.
    search._level_S[[0, 1, 4]] = 80.0
    search._level_S[7], search._level_S[8] = 51.5, 49.0
    assert not search.settled
    feed(search, structure, 1)
    assert search.settled
    gone = {f: units.tolist() for f, units in search.decide().units.items()}
    assert gone == {0: [2, 3], 1: [1, 2], 2: [1, 2, 3, 4]}
    assert search.draw() is None
    assert search.probe() is None
    assert search.should_cut(structure.everything(), search.decide())
    search.removed(search.decide())
    assert search.record()["theta"]["conv0"] == [1, 1, 1, 1, 1, 2]
    assert not search.decide()


def test_a_layer_measured_to_be_vital_stays_though_its_gradient_says_nothing():
    structure = residual().structure
    search = begin(ComplexityAware(price=0.3, layer_share=1.0, warmup=10), structure, 400)
    for _ in range(280):
        draw, probe = search.draw(), search.probe()
        if probe is not None:
            assert int((~probe.layers_L).sum()) == 1
            assert probe.units_U.all()
            search.observe_probe(probe, 1.0 if not probe.layers_L[0] else 0.0)
        search.observe(torch.zeros(12), torch.zeros(2), draw, 8)
    assert search.decide().layers == (1,)
    assert search.calibration()["layers"] == {"block1": 1.0, "block2": 0.0}


def test_a_layer_that_became_vital_while_it_was_off_is_found_and_returns():
    structure = residual().structure
    method = ComplexityAware(price=0.3, layer_share=1.0, patience=40, warmup=10, hold=100)
    search = begin(method, structure, 1200)
    worth = 0.0
    for step in range(800):
        worth = 1.0 if step > 100 else 0.0
        draw, probe = search.draw(), search.probe()
        if probe is not None:
            if draw is not None:
                assert draw.layers_L[~probe.layers_L].all()
            search.observe_probe(probe, worth)
        search.observe(torch.zeros(12), torch.zeros(2), draw, 8)
        if step == 90:
            assert search._chance()[12:].tolist() == [0, 0]
    assert search._chance()[12:].tolist() == [1, 1]
    assert not search.decide()


@pytest.mark.parametrize("first", ["probe", "gradients"])
def test_a_family_is_calibrated_whichever_of_probe_and_gradients_comes_first(first):
    structure = traced(perceptron(16, 16), 5)
    search = begin(ComplexityAware(price=0.3, warmup=100), structure, 600)
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        draw, probe = search.draw(), search.probe()
        g = torch.randn(32, generator=generator) * 0.01
        # h = B Var[g] = 8e-4; the loss bends four times as much.
        rise = None
        if probe is not None:
            rise = float((-g + 4 * 8e-4 / 2)[~probe.units_U].sum())
        if rise is not None and first == "probe":
            search.observe_probe(probe, rise)
        search.observe(g, torch.zeros(0), draw, 8)
        if rise is not None and first == "gradients":
            search.observe_probe(probe, rise)
    # Five probes' memory with half a one at 1: 3.5; h itself scatters by 23 %.
    assert search.calibration()["factor"]["0"] == pytest.approx(3.5, abs=1.2)


def test_a_resumed_run_equals_one_without_a_break():
    def start():
        torch.manual_seed(5)
        model = Residual()
        structure = traced(model, 6)
        return structure, begin(ComplexityAware(target_macs=0.5), structure, 300)

    def go(search, structure, generator, num_steps):
        seen = []
        for _ in range(num_steps):
            draw, probe = search.draw(), search.probe()
            if probe is not None:
                search.observe_probe(probe, float(torch.rand(1, generator=generator)))
                seen.append(torch.cat([probe.units_U, probe.layers_L]))
            noise = torch.randn(16, generator=generator) * 0.1
            search.observe(noise[:14], noise[14:], draw, 8)
            if draw is not None:
                seen.append(torch.cat([draw.units_U, draw.layers_L]))
            if search.should_cut(structure.everything(), search.decide()):
                seen.append(~search._condemned_S)
                search.removed(search.decide())
        return seen

    for pause in (7, 60, 123, 209, 250):
        structure, whole = start()
        noise = torch.Generator().manual_seed(1)
        go(whole, structure, noise, pause)
        state, noise_state = copy.deepcopy(whole.state_dict()), noise.get_state()
        rest = go(whole, structure, noise, 300 - pause)
        structure, resumed = start()
        resumed.load_state_dict(state)
        again = torch.Generator()
        again.set_state(noise_state)
        repeated = go(resumed, structure, again, 300 - pause)
        assert len(rest) == len(repeated)
        assert all(torch.equal(a, b) for a, b in zip(rest, repeated, strict=True))
        ended, continued = whole.state_dict(), resumed.state_dict()
        for name, value in ended.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(continued[name])), name


def test_the_state_holds_tensors_and_numbers_only():
    _, search = run(Residual(), ComplexityAware(price=0.1), 60, num_inputs=6)
    for value in search.state_dict().values():
        assert isinstance(value, torch.Tensor | int | float)


def test_a_state_of_another_model_is_refused():
    small, large = traced(perceptron(2, 2), 5), traced(perceptron(3, 3), 5)
    state = begin(ComplexityAware(price=1), small, 100).state_dict()
    with pytest.raises(ValueError, match=r"level_S of shape \[4\], and this model needs \[6\]"):
        begin(ComplexityAware(price=1), large, 100).load_state_dict(state)


def test_the_same_seed_gives_the_same_network_and_another_seed_other_draws():
    def weights(seed):
        torch.manual_seed(0)
        model = Residual()
        _, search = run(model, ComplexityAware(price=0.4), 240, num_inputs=6, seed=seed)
        return [p.detach().clone() for p in model.parameters()], search._gone_S

    (first, gone), (second, gone_again), (other, _) = weights(0), weights(0), weights(1)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(gone, gone_again)
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("target", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("kind", ["target_macs", "target_params"])
def test_a_budget_is_met_within_two_percent(kind, target):
    torch.manual_seed(0)
    model = perceptron(useful=60, useless=40)
    structure, search = run(model, ComplexityAware(**{kind: target}), 300, num_inputs=5, lr=1e-3)
    units, _ = left(search, structure)
    cost = structure.cost.macs if kind == "target_macs" else structure.cost.params
    share = cost.value(units.sum()[None]) / cost.value()
    # The smallest step is one unit, 1 % of the network.
    assert share == pytest.approx(target, abs=0.02 * target + 0.005)
    # The useless go before any useful one.
    useless_left, useful_gone = int(units[60:].sum()), int((~units[:60]).sum())
    assert useless_left == 0 or useful_gone <= 2


def test_a_budget_that_is_met_from_the_start_changes_nothing():
    structure = traced(perceptron(4, 4), 5)  # 64 MACs
    search = begin(ComplexityAware(target_macs=0.5, reference=640.0), structure, 100)
    feed(search, structure, 100)
    assert search.price == 0
    assert not search.decide()


def test_worth_is_reported_by_name():
    structure = residual().structure
    search = begin(ComplexityAware(price=0.3, warmup=0), structure, 400)
    feed(search, structure, 10)
    decision = Decision(units={1: torch.tensor([0, 2])}, layers=(1,))
    assert search.worth(decision) == {"block1.conv1": 0.0, "block2": 0.0}
