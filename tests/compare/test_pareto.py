"""The Pareto front, by hand."""

import pytest

from secateur.compare import front_of, pareto_front
from tests.compare.tiny import made_up, made_up_comparison


def test_hand_computed():
    points = [
        (1.0, 0.95),  # 0: dearest and best
        (0.5, 0.93),  # 1: on the front
        (0.5, 0.90),  # 2: as dear as 1 and worse
        (0.6, 0.93),  # 3: as good as 1 and dearer
        (0.2, 0.80),  # 4: cheapest
        (0.3, 0.79),  # 5: beaten by 4
    ]
    assert pareto_front(points) == [4, 1, 0]


def test_equal_points_are_all_on_the_front():
    assert pareto_front([(0.5, 0.9), (0.5, 0.9), (0.6, 0.9)]) == [0, 1]


def test_with_a_tolerance_a_point_has_to_be_cheaper_by_more_than_that():
    points = [(0.50, 0.9), (0.48, 0.9), (0.45, 0.8), (0.445, 0.7)]
    assert pareto_front(points) == [3, 2, 1]
    assert pareto_front(points, tolerance=0.01) == [2, 1]
    assert pareto_front(points, tolerance=0.025) == [2, 1, 0]  # 1 and 0 are equal in both


def test_nothing_has_an_empty_front():
    assert pareto_front([]) == []


@pytest.mark.parametrize("macs", [246.0, 244.5, 254.0])
def test_half_a_percent_less_does_not_put_a_worse_network_on_the_front(macs):
    results = {
        ("narrowed", 0.25, 3): made_up(0.95, 250.0),
        ("random", 0.25, 3): made_up(0.90, macs),
    }
    rows = made_up_comparison(results, budgets=[0.25]).rows
    assert [rows[number].method for number in front_of(rows, lambda r: r.macs)] == ["narrowed"]


def test_two_percent_less_do():
    results = {
        ("narrowed", 0.25, 3): made_up(0.95, 250.0),
        ("random", 0.25, 3): made_up(0.90, 230.0),
    }
    rows = made_up_comparison(results, budgets=[0.25]).rows
    assert [rows[n].method for n in front_of(rows, lambda row: row.macs)] == ["random", "narrowed"]
