"""Means, spreads and bills over seeds, by hand."""

import math

import pytest

from secateur.compare.recipes import Bill, Item
from tests.compare.tiny import made_up, made_up_comparison

PRUNED = (("pre-training", 60.0, 6.0), ("pruning", 2.0, 0.5), ("fine-tuning", 18.0, 1.5))


@pytest.fixture
def rows():
    results = {
        ("dense", None, 0): made_up(0.96, 1000.0, (("training", 100.0, 10.0),), own=0.004),
        ("dense", None, 1): made_up(0.98, 1000.0, (("training", 100.0, 5.0),), own=0.004),
        ("magnitude", 0.5, 0): made_up(0.90, 500.0, PRUNED, own=0.002),
        ("magnitude", 0.5, 1): made_up(0.94, 480.0, PRUNED, own=0.001),
        ("narrowed", 0.5, 1): made_up(0.93, 510.0, (("training", 51.0, 4.0),)),
    }
    found = made_up_comparison(results, seeds=[0, 1]).rows
    return {row.method: row for row in found}


def test_a_bill_is_the_sum_of_its_parts():
    bill = Bill(tuple(Item(what=what, macs=macs, seconds=s) for what, macs, s in PRUNED))
    assert (bill.macs, bill.seconds) == (60 + 2 + 18, 6 + 0.5 + 1.5)
    assert (Bill(()).macs, Bill(()).seconds) == (0, 0)


def test_accuracy_is_the_mean_and_the_spread_the_standard_deviation(rows):
    row = rows["magnitude"]
    assert row.accuracies == (0.90, 0.94)
    assert row.accuracy == pytest.approx(0.92)
    assert row.spread == pytest.approx(math.sqrt((0.02**2 + 0.02**2) / 1))


def test_one_seed_has_no_spread(rows):
    assert rows["narrowed"].seeds == 1
    assert rows["narrowed"].spread is None


def test_sizes_are_shares_of_the_full_network(rows):
    assert rows["magnitude"].macs == pytest.approx((0.5 + 0.48) / 2)
    assert rows["magnitude"].params == pytest.approx(0.4)


def test_speed_is_the_mean_of_ratios_measured_in_turn(rows):
    assert rows["magnitude"].speedup == {1: pytest.approx((2 + 4) / 2)}
    assert rows["magnitude"].seconds == {1: pytest.approx(0.0015)}


def test_a_bill_is_a_multiple_of_the_dense_training_of_the_same_seed(rows):
    row = rows["magnitude"]
    assert row.training_macs == pytest.approx(80 / 100)
    assert row.training_seconds == pytest.approx((8 / 10 + 8 / 5) / 2)
    assert row.macs_of == pytest.approx({"pre-training": 0.6, "pruning": 0.02, "fine-tuning": 0.18})
    assert sum(row.seconds_of.values()) == pytest.approx(row.training_seconds)
    # Seed 0 of the narrowed network is not finished.
    assert rows["narrowed"].training_seconds == pytest.approx(4 / 5)
    assert rows["dense"].training_macs == 1


def test_before_the_dense_training_has_ended_no_bill_has_a_measure():
    (row,) = made_up_comparison({("narrowed", 0.5, 3): made_up()}).rows
    assert (row.training_macs, row.training_seconds, row.macs_of) == (None, None, {})


def test_rows_stand_in_the_order_of_the_methods(rows):
    assert list(rows) == ["dense", "narrowed", "magnitude"]
