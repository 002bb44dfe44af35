"""Which unit stays in every family, and how a budget is met."""

import pytest
import torch

from secateur.methods._rounding import keepers, meet, worst_first


def test_every_family_keeps_its_best_unit_and_the_first_of_equals():
    rank = torch.tensor([1.0, 3.0, 3.0, 9.0, 2.0, 5.0])
    alive = torch.tensor([True, True, True, False, True, False])
    family = torch.tensor([0, 0, 0, 1, 1, 2])
    kept = keepers(rank, alive, family, torch.tensor([1, 1, 1]))
    assert kept.nonzero().flatten().tolist() == [1, 4]


def test_a_family_keeps_as_many_units_as_it_needs_and_has():
    rank = torch.tensor([1.0, 3.0, 2.0, 9.0, 2.0, 5.0])
    alive = torch.tensor([True, True, True, False, True, True])
    family = torch.tensor([0, 0, 0, 1, 1, 2])
    kept = keepers(rank, alive, family, torch.tensor([2, 2, 1]))
    assert kept.nonzero().flatten().tolist() == [1, 2, 4, 5]


def test_the_lowest_level_goes_first_and_worth_decides_between_equals():
    candidate = torch.tensor([True, True, True, False, True])
    level = torch.tensor([5.0, 0.0, 5.0, 0.0, 1.0])
    worth = torch.tensor([2.0, 9.0, 1.0, 0.0, 9.0])
    assert worst_first(candidate, level, worth).tolist() == [1, 4, 2, 0]


def weigh(*weights):
    return lambda kept: float(torch.tensor(weights, dtype=torch.float64)[kept].sum())


def test_a_budget_is_met_from_above_in_order():
    cost = weigh(*[0.1] * 10)
    kept = meet(torch.arange(10), torch.ones(10, dtype=torch.bool), cost, 0.4)
    assert kept.tolist() == [False] * 6 + [True] * 4


def test_a_structure_that_would_overshoot_is_passed_over():
    # 0.5 has to be reached from 1: the layer of 0.6 at the brink stays, small ones fill up.
    cost = weigh(0.1, 0.6, *[0.05] * 6)
    order = torch.arange(8)
    kept = meet(order, torch.ones(8, dtype=torch.bool), cost, 0.7)
    assert kept[1]
    assert cost(kept) == pytest.approx(0.7)


def test_the_nearest_miss_is_taken_where_nothing_fits():
    cost = weigh(0.4, 0.35, 0.25)
    kept = meet(torch.tensor([0, 1]), torch.ones(3, dtype=torch.bool), cost, 0.64)
    assert kept.tolist() == [True, False, True]


def test_a_large_step_below_is_taken_where_it_ends_nearer_than_staying():
    cost = weigh(0.4, 0.6)
    kept = meet(torch.tensor([0]), torch.ones(2, dtype=torch.bool), cost, 0.62)
    assert kept.tolist() == [False, True]


def test_nothing_goes_below_the_target():
    cost = weigh(0.5, 0.5)
    kept = meet(torch.tensor([0]), torch.ones(2, dtype=torch.bool), cost, 1.0)
    assert kept.all()


@pytest.mark.parametrize("target", [0.15, 0.3, 0.62, 0.9])
def test_fine_structures_end_within_a_percent_of_any_target(target):
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(700, generator=generator).double() ** 4
    cost = weigh(*(weights / weights.sum()).tolist())
    order = torch.randperm(700, generator=generator)
    kept = meet(order, torch.ones(700, dtype=torch.bool), cost, target)
    assert cost(kept) == pytest.approx(target, rel=0.01)
