"""The rule by which probabilities move."""

import math

import pytest
import torch
from torch.testing import assert_close

from secateur.methods._dynamics import RESERVE, hold, move, probability, relative_worth


def walk(level, worths, patience):
    seen = torch.ones_like(level, dtype=torch.bool)
    for worth in worths:
        level = move(level, worth, seen, patience)
    return level


def test_flattening_prior_is_a_linear_price():
    # min over pi of KL(Bern(theta) || Bern(pi)) + log(1 + (gamma - 1) pi) = theta log gamma,
    # attained at pi = theta / (theta + gamma (1 - theta)); here by a grid over pi.
    pi = torch.linspace(1e-5, 1 - 1e-5, 400_001, dtype=torch.float64)
    for theta in (0.1, 0.5, 0.9):
        for gamma in (1.5, 4.0, 20.0):
            divergence = theta * (theta / pi).log() + (1 - theta) * ((1 - theta) / (1 - pi)).log()
            values = divergence + (1 + (gamma - 1) * pi).log()
            assert float(values.min()) == pytest.approx(theta * math.log(gamma), abs=1e-8)
            best = theta / (theta + gamma * (1 - theta))
            assert float(pi[values.argmin()]) == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("patience", [3, 7, 300])
def test_what_is_of_no_use_reaches_zero_after_exactly_the_patience(patience):
    level = torch.full((2,), float(patience), dtype=torch.float64)
    idle = torch.zeros(2, dtype=torch.float64)
    before = walk(level, [idle] * (patience - 1), patience)
    after = walk(level, [idle] * patience, patience)
    assert (probability(before, patience) > 0).all()
    assert (probability(after, patience) == 0).all()


def test_a_layer_and_a_filter_of_no_use_fall_alike():
    price = torch.tensor([0.1, 0.0005], dtype=torch.float64)
    worth = relative_worth(torch.zeros(2, dtype=torch.float64), price)
    level = walk(torch.full((2,), 10.0, dtype=torch.float64), [worth] * 4, 10)
    assert_close(level, torch.full((2,), 6.0, dtype=torch.float64))


def test_noise_around_the_price_does_not_drift_towards_removal():
    generator = torch.Generator().manual_seed(0)
    level = torch.full((500,), 50.0, dtype=torch.float64)
    noise = 4 * torch.randn(100, 500, generator=generator, dtype=torch.float64)
    moved = walk(level, list(1 + noise), 100)
    # 100 steps clipped to +-2, std 1.75: a standard error of 17.5 / sqrt(500) = 0.8 for the mean.
    assert abs(float(moved.mean()) - 50) < 3


def test_what_has_proven_its_worth_survives_a_burst_of_noise():
    patience = 20
    worthy, idle = torch.tensor([3.0]).double(), torch.tensor([0.0]).double()
    level = walk(torch.tensor([20.0]).double(), [worthy] * 10, patience)
    assert float(level) == (1 + RESERVE) * patience
    assert float(probability(walk(level, [idle] * 5, patience), patience)) == 1


def test_a_structure_that_earns_its_price_again_returns_to_one():
    level = walk(torch.tensor([0.0]).double(), [torch.tensor([2.0]).double()] * 12, 12)
    assert float(probability(level, 12)) == 1


def test_what_costs_nothing_is_worth_keeping():
    worth = relative_worth(torch.tensor([-1.0, 0.0, 2.0]).double(), torch.zeros(3).double())
    assert (walk(torch.ones(3).double(), [worth], 4) == 3).all()


def test_what_was_not_seen_stays_and_keeps_its_count():
    seen = torch.tensor([True, False])
    zero = torch.zeros(2, dtype=torch.float64)
    held = hold(torch.tensor([4, 4]), zero, zero, seen)
    assert held.tolist() == [5, 4]
    assert move(torch.full((2,), 5.0).double(), zero, seen, 9).tolist() == [4.0, 5.0]


def test_hold_starts_again_when_the_condition_breaks():
    level = torch.tensor([0.0, 0.5, 0.0], dtype=torch.float64)
    worth = torch.tensor([0.9, 0.9, 1.0], dtype=torch.float64)
    seen = torch.ones(3, dtype=torch.bool)
    assert hold(torch.tensor([7, 7, 7]), level, worth, seen).tolist() == [8, 0, 0]


def test_quadratic_worth_leaves_probabilities_at_zero_or_one():
    # Rise of the loss 0.5 a (2 - theta) for each: structures of a < 1 are not worth a price of 1
    # even alone, those of a > 2 are worth it always.
    a = torch.tensor([0.2, 0.9, 2.5, 4.0], dtype=torch.float64)
    level = torch.full((4,), 25.0, dtype=torch.float64)
    for _ in range(2000):
        level = walk(level, [0.5 * a * (2 - probability(level, 50))], 50)
    assert probability(level, 50).tolist() == [0.0, 0.0, 1.0, 1.0]
