import copy
import json

import pytest
import torch
from rich.console import Console
from torch.testing import assert_close

from secateur.errors import UsageError
from secateur.structure import Decision, trace
from tests.structures import Built
from tests.structures import residual as residual_by_hand
from tests.training.scripted import (
    Scripted,
    all_but,
    assert_same,
    start,
    train_step,
    weights_of,
)


def batch(seed: int, size: int = 8) -> torch.Tensor:
    return torch.randn(size, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


GONE = Decision(units={0: torch.tensor([2]), 2: torch.tensor([0, 3])}, layers=(0,))
OFF_UNITS = (2, 7, 10)  # the same in flat numbers: families of 4, 3 and 5 units

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
}


def residual() -> Built:
    """The residual net as `trace` sees it: removals prove themselves against the trace."""
    model, _, example = residual_by_hand()
    return Built(model, trace(model, example), example)


def double() -> Built:
    model, _, example = residual_by_hand()
    return Built(model.double(), trace(model, example.double()), example.double())


def test_the_trace_counts_families_and_layers_as_the_hand_does():
    found, expected = residual().structure, residual_by_hand().structure
    assert [f.num_units for f in found.families] == [f.num_units for f in expected.families]
    assert [layer.name for layer in found.layers] == [layer.name for layer in expected.layers]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_after_a_cut_updates_equal_those_of_the_masked_network(name):
    """Two runs, one cut after step 3, one masked by gates from step 3 on: the rest must agree."""
    cut, masked = double(), double()
    draw = all_but(cut.structure, units=OFF_UNITS, layers=(0,))
    session, first = start(
        cut, Scripted(decisions={3: GONE}), OPTIMIZERS[name](cut.model.parameters())
    )
    _, second = start(
        masked,
        Scripted(draws=dict.fromkeys(range(3, 9), draw)),
        OPTIMIZERS[name](masked.model.parameters()),
    )
    for step in range(8):
        images = batch(step).double()
        found = train_step(cut.model, first, images)
        assert_close(found, train_step(masked.model, second, images), rtol=1e-10, atol=1e-12)
    assert not session.live.layers[0]
    assert cut.model.fc.weight.shape == (3, 3)
    keep = [0, 1, 3]
    assert_close(cut.model.fc.weight, masked.model.fc.weight[:, keep], rtol=1e-10, atol=1e-12)
    assert_close(
        cut.model.block2.conv1.weight,
        masked.model.block2.conv1.weight[[1, 2, 4]][:, keep],
        rtol=1e-10,
        atol=1e-12,
    )


def test_gates_go_on_in_the_smaller_network():
    cut, masked = double(), double()
    later = all_but(cut.structure, units=(0,), layers=(1,))
    both = all_but(cut.structure, units=(0, *OFF_UNITS), layers=(0, 1))
    ours = Scripted(decisions={2: GONE}, draws={3: later})
    gone = all_but(cut.structure, units=OFF_UNITS, layers=(0,))
    theirs = Scripted(draws={2: gone, 3: both})
    _, first = start(cut, ours)
    _, second = start(masked, theirs)
    for step in range(4):
        images = batch(step).double()
        train_step(cut.model, first, images)
        train_step(masked.model, second, images)
    alive = both.units_U | (torch.arange(12) == 0)
    for step in (2, 3):
        units, layers, *_ = ours.observed[step]
        expected, expected_layers, *_ = theirs.observed[step]
        inner = torch.arange(12) >= 7 if step == 2 else torch.arange(12) < 4
        assert_close(units[alive & inner], expected[alive & inner])
        assert_close(layers[1], expected_layers[1])
        assert not units[list(OFF_UNITS)].any()


def test_the_method_is_told_what_went_and_events_tell_the_rest():
    built = residual()
    heard = []
    method = Scripted(decisions={2: GONE}, settle=4)
    session, optimizer = start(built, method, on_event=heard.append, total_steps=10, seed=7)
    for step in range(5):
        train_step(built.model, optimizer, batch(step))
    assert method.gone == [GONE]
    assert heard == session.events
    first, *_, last = heard
    assert [event["event"] for event in heard if event["event"] != "step"] == [
        "start",
        "remove",
        "settle",
    ]
    assert (first["step"], first["seed"], first["total_steps"]) == (0, 7, 10)
    assert first["families"][2] == {"name": "block2.conv1", "kind": "filter", "units": 5}
    remove = next(event for event in heard if event["event"] == "remove")
    assert remove["units"] == {"conv0": [2], "block2.conv1": [0, 3]}
    assert remove["layers"] == ["block1"]
    assert remove["step"] == 2
    assert remove["price"] == 0.25
    stem, block2, head = 27 * 3 + 2 * 3, 9 * 3 * 3 + 2 * 3 + 9 * 3 * 3 + 2 * 3, 3 * 3 + 3
    assert remove["params"] == stem + block2 + head
    assert last["kept_units"] == {"conv0": 3, "block1.conv1": 3, "block2.conv1": 3}
    assert last["kept_layers"] == ["block2"]
    assert all(event["seconds"] >= 0 for event in heard)
    json.dumps(heard)
    assert session.macs_share == pytest.approx(remove["macs"] / first["macs"])


def test_averaged_copies_shrink_along():
    built = residual()
    average = torch.optim.swa_utils.AveragedModel(built.model)
    session, optimizer = start(built, Scripted(decisions={1: GONE}), ema=[average])
    for step in range(3):
        train_step(built.model, optimizer, batch(step))
        average.update_parameters(built.model)
    assert session.step == 3
    assert average.module.fc.weight.shape == (3, 3)
    average.eval()(batch(0))


def test_what_should_wait_waits():
    built = residual()
    method = Scripted(decisions={1: GONE, 3: GONE})
    method.should_cut = lambda live, pending: method.step == 3
    session, optimizer = start(built, method)
    train_step(built.model, optimizer, batch(0))
    assert session.live.layers.all()
    for step in (1, 2):
        train_step(built.model, optimizer, batch(step))
    assert not session.live.layers[0]


def test_the_report_shows_what_went_and_what_it_saved():
    built = residual()
    session, optimizer = start(built, Scripted(decisions={2: GONE}, settle=4), total_steps=5)
    for step in range(5):
        train_step(built.model, optimizer, batch(step))
    report = session.report()
    assert [(f.name, f.before, f.after) for f in report.families] == [
        ("conv0", 4, 3),
        ("block1.conv1", 3, 0),
        ("block2.conv1", 5, 3),
    ]
    assert report.layers_removed == ("block1",)
    share = report.macs[1] / report.macs[0]
    assert report.training_macs_share == pytest.approx((2 + 2 * share) / 4)
    text = str(report)
    assert "Gone: block1." in text
    assert f"{100 * share:.1f} % of the MACs" in " ".join(text.split())
    console = Console(record=True, width=80, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(report)
    assert "block2.conv1" in console.export_text()
    console.file.close()


def resumed(built: Built, state, model_state, optimizer_state, method):
    session, optimizer = start(built, method)
    session.load_state_dict(state)
    built.model.load_state_dict(model_state)
    optimizer.load_state_dict(optimizer_state)
    return session, optimizer


def test_a_resumed_run_goes_on_where_the_first_one_stopped():
    def method():
        built = residual()
        draw = all_but(built.structure, units=(0,), layers=(1,))
        return Scripted(decisions={2: GONE}, draws=draw, settle=6)

    whole = residual()
    session, optimizer = start(whole, method())
    for step in range(4):
        train_step(whole.model, optimizer, batch(step))
    saved = copy.deepcopy((session.state_dict(), whole.model.state_dict(), optimizer.state_dict()))
    for step in range(4, 8):
        train_step(whole.model, optimizer, batch(step))
    fresh = residual()
    again, second = resumed(fresh, *saved, method())
    assert again.step == 4
    assert again.macs_share < 1
    for step in range(4, 8):
        train_step(fresh.model, second, batch(step))
    assert_same(weights_of(fresh.model), weights_of(whole.model))
    assert again.training_macs_share == session.training_macs_share
    assert again.search.numbers == session.search.numbers[4:]
    assert again.events[0]["event"] == "start"
    assert again.events[0]["step"] == 4
    assert again.state_dict()["num_events"] == session.state_dict()["num_events"] + 1


def test_a_run_resumed_after_settling_has_no_hooks():
    built = residual()
    session, optimizer = start(built, Scripted(decisions={1: GONE}, settle=1))
    train_step(built.model, optimizer, batch(0))
    saved = copy.deepcopy((session.state_dict(), built.model.state_dict(), optimizer.state_dict()))
    fresh = residual()
    resumed(fresh, *saved, Scripted())
    assert not fresh.model._forward_pre_hooks
    assert_same(weights_of(fresh.model), weights_of(built.model))


def plain(value) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and plain(entry) for key, entry in value.items())
    if isinstance(value, list):
        return all(plain(entry) for entry in value)
    return isinstance(value, torch.Tensor | int | float)


def test_the_state_holds_tensors_and_numbers_only():
    session, _ = start(residual(), Scripted())
    assert plain(session.state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, r"has version 2; this secateur reads version 1"),
        ({"units": [torch.ones(4)]}, r"families of \[4\] units and 2 layers; the model has"),
        ({"generator": 3}, r"lacks a usable entry for generator"),
        ({"step": "x"}, r"lacks a usable entry for step"),
        ({"layers": None}, r"lacks a usable entry for units and layers"),
        ({"search": None}, r"lacks a usable entry for units and search"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change, message):
    session, _ = start(residual(), Scripted())
    with pytest.raises(UsageError, match=message):
        session.load_state_dict({**session.state_dict(), **change})


def test_a_state_is_not_loaded_into_a_run_that_has_begun():
    built = residual()
    session, optimizer = start(built, Scripted())
    train_step(built.model, optimizer, batch(0))
    with pytest.raises(UsageError, match=r"^This session has already taken 1 steps"):
        session.load_state_dict(session.state_dict())
