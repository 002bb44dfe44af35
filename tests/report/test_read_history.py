import math

import pytest

from secateur.report._events import read_events
from secateur.report._read_history import history_of
from tests.report.synthetic_runs import write_run

START = {
    "event": "start",
    "step": 0,
    "macs": 1000,
    "params": 200,
    "families": [{"name": "a", "units": 8}, {"name": "b", "units": 4}],
    "layers": ["block1", "block2"],
}


def history(folder, *events):
    return history_of(read_events(write_run(folder, [START, *events])))


def test_times_are_in_epochs_where_the_run_has_epochs(tmp_path):
    run = history(
        tmp_path,
        {"event": "step", "step": 5, "price": 0.3},
        {"event": "epoch", "step": 10, "epoch": 1, "validation_accuracy": 0.5},
        {"event": "epoch", "step": 20, "epoch": 2, "validation_accuracy": 0.7},
        {"event": "step", "step": 25, "price": 0.4},
    )
    assert run.clock == "epoch"
    assert run.validation_accuracy.times == (1.0, 2.0)
    assert run.validation_accuracy.values == (0.5, 0.7)
    assert run.price.times == (0.5, 2.5)
    assert (run.last_step, run.last_time) == (25, 2.5)


def test_times_are_in_steps_where_the_run_has_no_epochs(tmp_path):
    run = history(tmp_path, {"event": "step", "step": 5, "price": 0.3})
    assert run.clock == "step"
    assert run.price.times == (5.0,)


def test_sizes_and_widths_of_an_unfinished_run_are_those_after_its_last_removal(tmp_path):
    run = history(
        tmp_path,
        {"event": "remove", "step": 3, "units": {"a": [0, 5]}, "macs": 800, "params": 150},
        {"event": "remove", "step": 6, "units": {"a": [1], "b": [3]}, "macs": 600, "params": 120},
    )
    assert not run.is_finished
    assert (run.macs_before, run.macs_after) == (1000, 600)
    assert (run.params_before, run.params_after) == (200, 120)
    widths = [(family.name, family.units_before, family.units_after) for family in run.families]
    assert widths == [("a", 8, 5), ("b", 4, 3)]


def test_the_end_has_the_last_word(tmp_path):
    run = history(
        tmp_path,
        {"event": "remove", "step": 3, "units": {"a": [0]}, "macs": 800},
        {"event": "settle", "step": 5, "macs": 700, "kept_units": {"a": 6, "b": 3}},
        {
            "event": "end",
            "step": 9,
            "macs": 650,
            "widths": {"a": [8, 2], "b": [4, 3]},
            "test_accuracy": 0.9,
            "latency": {
                "64": {"before": 4e-2, "after": 2e-2},
                "1": {"before": 3e-3, "after": 2e-3},
            },
        },
    )
    assert run.is_finished
    assert run.macs_after == 650
    assert [family.units_after for family in run.families] == [2, 3]
    assert [(each.batch_size, each.after_seconds) for each in run.latency] == [
        (1, 2e-3),
        (64, 2e-2),
    ]


def test_macs_fall_at_the_step_of_the_removal_and_not_at_the_next_record(tmp_path):
    run = history(
        tmp_path,
        {"event": "step", "step": 4, "macs_share": 1.0},
        {"event": "remove", "step": 5, "units": {"a": [0]}, "macs": 750},
        {"event": "step", "step": 8, "macs_share": 0.75},
    )
    assert run.macs_share.times == (0.0, 4.0, 5.0, 8.0)
    assert run.macs_share.values == (1.0, 1.0, 0.75, 0.75)


def test_of_two_sizes_at_one_step_the_smaller_one_comes_last(tmp_path):
    run = history(
        tmp_path,
        {"event": "remove", "step": 5, "macs": 600},
        {"event": "step", "step": 5, "macs_share": 1.0},
        {"event": "step", "step": 6, "loss": 0.1},
    )
    # The size of the last record holds until the last step.
    assert run.macs_share.times == (0.0, 5.0, 5.0, 6.0)
    assert run.macs_share.values == (1.0, 1.0, 0.6, 0.6)


def test_a_layer_is_gone_since_its_removal_with_the_worth_it_had(tmp_path):
    run = history(
        tmp_path,
        {"event": "remove", "step": 7, "layers": ["block2"], "worth": {"block2": 0.4}},
        {"event": "end", "step": 9, "removed_layers": ["block2"]},
    )
    kept, gone = run.layers
    assert (kept.name, kept.is_kept, kept.removed_at, kept.worth) == ("block1", True, None, None)
    assert (gone.name, gone.is_kept, gone.removed_at, gone.worth) == ("block2", False, 7.0, 0.4)


def test_a_layer_rounded_away_at_settling_is_gone_since_then(tmp_path):
    run = history(tmp_path, {"event": "settle", "step": 6, "kept_layers": ["block2"]})
    assert [(layer.is_kept, layer.removed_at) for layer in run.layers] == [
        (False, 6.0),
        (True, None),
    ]
    assert run.settled_at == 6


def test_a_layer_that_only_the_end_knows_of_has_no_time(tmp_path):
    run = history(tmp_path, {"event": "end", "step": 6, "removed_layers": ["block1"]})
    assert [(layer.is_kept, layer.removed_at) for layer in run.layers] == [
        (False, None),
        (True, None),
    ]


def test_theta_and_phi_are_read_by_name(tmp_path):
    run = history(
        tmp_path,
        {
            "event": "step",
            "step": 1,
            "theta": {"b": [0.1, 0.2, 0.3, 0.4, 0.5, 4]},
            "phi": {"block1": 0.6},
        },
        {"event": "step", "step": 2, "theta": {}, "phi": {}},
    )
    a, b = run.families
    assert not any(a.theta)
    assert [curve.values for curve in b.theta] == [(0.1,), (0.2,), (0.3,), (0.4,), (0.5,)]
    assert run.layers[0].phi.values == (0.6,)
    assert not run.layers[1].phi


def test_figures_that_are_not_finite_are_unknown(tmp_path):
    run = history(
        tmp_path,
        {"event": "step", "step": 1, "price": math.nan},
        {"event": "step", "step": 2, "price": math.inf},
        {"event": "end", "step": 3, "test_accuracy": math.nan, "macs": math.nan},
    )
    assert run.price.values == (None, None)
    assert not run.price
    assert run.test_accuracy is None
    assert run.macs_after == 1000


def test_a_family_that_vanished_with_its_layer_has_no_units_and_no_theta_any_more(tmp_path):
    run = history(
        tmp_path,
        {"event": "step", "step": 1, "theta": {"a": [0.5, 0.6, 0.7, 0.8, 0.9, 8]}},
        {"event": "remove", "step": 2, "layers": ["block1"]},
        {"event": "step", "step": 3, "theta": {"a": [0, 0, 0, 0, 0, 0]}},
        {"event": "settle", "step": 4, "kept_units": {"a": 8, "b": 4}},
    )
    assert [family.units_after for family in run.families] == [0, 4]
    assert run.families[0].theta[2].values == (0.7,)


def test_figures_that_were_not_finite_when_they_were_written_are_null(tmp_path):
    run = history(
        tmp_path,
        {"event": "step", "step": 1, "theta": {"a": [None] * 5}, "phi": {"block1": None}},
        {"event": "calibration", "step": 2, "factor": {"a": None, "b": 1.5}, "layers": {"x": None}},
    )
    assert not any(run.families[0].theta)
    assert not run.layers[0].phi
    assert run.calibration == {"b": 1.5}


def test_a_removal_that_names_no_price_went_at_the_last_one_recorded(tmp_path):
    run = history(
        tmp_path,
        {"event": "step", "step": 1, "price": 0.1},
        {"event": "step", "step": 4, "price": 0.2},
        {"event": "remove", "step": 4},
        {"event": "remove", "step": 5, "price": 0.25},
        {"event": "step", "step": 6, "price": 0.3},
    )
    assert [removal.price for removal in run.removals] == [0.2, 0.25]


def test_seconds_of_training_are_the_sum_of_the_epochs(tmp_path):
    epochs = [
        {"event": "epoch", "step": 10, "seconds": 8.0, "epoch_seconds": 5.0},
        {"event": "epoch", "step": 20, "seconds": 19.0, "epoch_seconds": 4.5},
    ]
    run = history(tmp_path, *epochs)
    assert run.training_seconds.times == (0.0, 1.0, 2.0)
    assert run.training_seconds.values == (0.0, 5.0, 9.5)
    assert run.total_seconds == pytest.approx(9.5, rel=1e-12)
    del epochs[1]["epoch_seconds"]
    assert history(tmp_path, *epochs).training_seconds.values == (0.0, 8.0, 19.0)


def test_the_cost_of_training_starts_at_nothing(tmp_path):
    run = history(
        tmp_path,
        {"event": "epoch", "step": 10, "training_macs": 3e6},
        {"event": "epoch", "step": 20, "training_macs": 5e6},
    )
    assert run.training_macs.values == (0.0, 3e6, 5e6)
    assert run.total_training_macs == 5_000_000


@pytest.mark.parametrize(
    "broken",
    [
        {"x": {"before": 1, "after": 1}},
        {"1": {"before": 0, "after": 1}},
        {"1": {}},
        {"1": {"before": math.nan, "after": 1}},
        {"1" * 5000: {"before": 1, "after": 1}},
    ],
)
def test_a_latency_that_cannot_be_compared_is_left_out(tmp_path, broken):
    assert history(tmp_path, {"event": "end", "step": 1, "latency": broken}).latency == ()
