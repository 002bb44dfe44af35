"""ResRep's search on compactors whose norms are made by hand."""

import pytest
import torch
from torch import nn

from secateur.errors import UsageError
from secateur.gates import Compactors
from secateur.methods import ResRep, ResRepSearch
from secateur.methods._resrep_search import ResRepTerms
from secateur.structure import trace

TERMS = {
    "target": 0.5,
    "penalty": 0.5,
    "momentum": 0.9,
    "warmup": 10**6,
    "until": 10**6 + 1,
    "fall": 10**6,
    "interval": 1,
    "min_units": 1,
}


def perceptron() -> nn.Sequential:
    """5 inputs, 4 and 3 hidden units, 2 outputs: 5a + ab + 2b MACs, 38 in all."""
    return nn.Sequential(
        nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)
    ).double()


def search_on(norms: dict[int, list[float]], **terms: float) -> tuple[ResRepSearch, Compactors]:
    model = perceptron()
    structure = trace(model, torch.zeros(1, 5, dtype=torch.float64))
    search = ResRepSearch(structure, ResRepTerms(**{**TERMS, **terms}))
    compactors = Compactors(model, structure)
    search.equip(compactors)
    for family, values in norms.items():
        compactors.matrices[family].copy_(torch.tensor(values, dtype=torch.float64).diag())
    return search, compactors


def chosen(search: ResRepSearch) -> list[list[int]]:
    return [torch.nonzero(search.forgotten[f]).flatten().tolist() for f in (0, 1)]


NORMS = {0: [1.0, 0.2, 0.5, 0.9], 1: [0.3, 0.1, 0.8]}


def test_rows_are_chosen_by_norm_over_all_families_until_the_share_is_reached():
    """Without .1: 20 + 8 + 4 = 32 MACs; without .2, too: 15 + 6 + 4 = 25."""
    search, _ = search_on(NORMS)
    search.choose(32 / 38)
    assert chosen(search) == [[], [1]]
    search.choose(30 / 38)
    assert chosen(search) == [[1], [1]]
    search.choose(25 / 38)
    assert chosen(search) == [[1], [1]]


def test_what_was_chosen_stays_chosen_whatever_its_norm():
    search, compactors = search_on(NORMS)
    search.choose(30 / 38)
    compactors.matrices[1][1] = 5
    search.choose(24 / 38)
    assert chosen(search) == [[1], [0, 1]]


def test_every_family_keeps_its_least_units_and_others_go_in_their_place():
    """Family 1 is at its two units after .1 has gone; .3 is skipped and .5 goes."""
    search, _ = search_on(NORMS, min_units=2)
    search.choose(20 / 38)
    assert chosen(search) == [[1, 2], [1]]
    search.choose(0.0)
    assert chosen(search) == [[1, 2], [1]]


def test_a_row_that_the_penalty_emptied_counts_before_others_are_chosen():
    search, _ = search_on({0: [0.1, 0.2, 0.5, 0.9], 1: [1.0, 0.0, 0.8]})
    search.choose(32 / 38)
    assert chosen(search) == [[], [1]]


def test_a_chosen_row_falls_by_rate_times_penalty_to_exactly_zero_whatever_the_loss_says():
    search, compactors = search_on({0: [1.0, 1.0, 1.0, 0.99]})
    search.choose(33 / 38)
    assert chosen(search)[0] == [3]
    compactors.gradients = {0: torch.full((4, 4), -3.0, dtype=torch.float64)}
    for step in range(1, 20):
        search.train_compactors({0: 0.1, 1: 0.1})
        left = 0.99 - 0.1 * 0.5 * step
        assert float(compactors.matrices[0][3].norm()) == pytest.approx(left, abs=1e-12)
    search.train_compactors({0: 0.1, 1: 0.1})
    assert not compactors.matrices[0][3].any()
    assert float(compactors.matrices[0][:3].norm(dim=1).min()) > 1


def test_other_rows_follow_heavy_ball_and_then_lose_rate_times_penalty():
    search, compactors = search_on({})
    row, velocity = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64), torch.zeros(4)
    gradient = torch.tensor([0.3, -0.2, 0.1, 0.5], dtype=torch.float64)
    for _ in range(7):
        compactors.gradients = {0: gradient.expand(4, 4)}
        search.train_compactors({0: 0.1, 1: 0.1})
        velocity = 0.9 * velocity + gradient
        row = row - 0.1 * velocity
        row = row * (1 - 0.05 / row.norm())
        assert torch.allclose(compactors.matrices[0][0], row)


def test_a_chosen_row_is_zero_in_time_even_without_a_learning_rate():
    search, compactors = search_on(NORMS, fall=7)
    search.choose(30 / 38)
    for _ in range(5):
        search.train_compactors({0: 0.0, 1: 0.0})
    assert compactors.matrices[0][1].any()
    for _ in range(2):
        search.train_compactors({0: 0.0, 1: 0.0})
    assert not compactors.matrices[0][1].any()
    assert not compactors.matrices[1][1].any()
    assert compactors.matrices[0][0].norm() == 1


def test_more_rows_are_chosen_along_a_straight_line_to_the_target():
    terms = {"warmup": 2, "until": 12, "interval": 2, "fall": 100, "penalty": 0.0, "target": 0.4}
    search, _ = search_on(NORMS, **terms)
    left = []
    for _ in range(14):
        search.train_compactors({0: 0.0, 1: 0.0})
        left.append(search._share([]))
    # 0.6 / 5 less with each of the choices at steps 2, 4, 6, 8, 10; the last is at the target.
    assert left[0] == 1
    for number, step in enumerate((2, 4, 6, 8, 10)):
        assert left[step - 1] <= 1 - 0.12 * (number + 1) + 1e-12
    assert left[1] == 32 / 38
    assert left[-1] <= 0.4
    assert left == sorted(left, reverse=True)


def test_nothing_goes_before_all_that_was_chosen_is_zero():
    search, _ = search_on(NORMS, target=30 / 38, fall=4)
    search.choose(30 / 38)
    for _ in range(3):
        assert not search.decide()
        search.train_compactors({0: 0.0, 1: 0.0})
    search.train_compactors({0: 0.0, 1: 0.0})
    assert search.settled
    assert {f: u.tolist() for f, u in search.decide().units.items()} == {0: [1], 1: [1]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_macs": 1.0}, r"target_macs=1.0 is outside \(0, 1\)"),
        ({"target_macs": 0.5, "penalty": -1}, "penalty=-1 is not a speed"),
        ({"target_macs": 0.5, "momentum": 1}, r"momentum=1 is outside \[0, 1\)"),
        ({"target_macs": 0.5, "settle_at": 0}, r"settle_at=0 is outside \(0, 1\]"),
        ({"target_macs": 0.5, "interval": 0}, "interval=0 is too few"),
        ({"target_macs": 0.5, "min_units": 0}, "min_units=0 is too few"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        ResRep(**settings)


@pytest.mark.parametrize(
    ("method", "steps", "message"),
    [
        (ResRep(target_macs=0.1), 1000, "this network still has 0.211 of its MACs"),
        (ResRep(target_macs=0.5), 6, "too few to choose rows"),
    ],
)
def test_what_cannot_be_done_is_said_at_the_start(method, steps, message):
    """One unit in both families leaves 5 + 1 + 2 of 38 MACs."""
    structure = trace(perceptron(), torch.zeros(1, 5, dtype=torch.float64))
    with pytest.raises(UsageError, match=message):
        method.begin(
            structure,
            total_steps=steps,
            steps_per_epoch=None,
            generator=torch.Generator(),
            device="cpu",
        )
