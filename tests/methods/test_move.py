"""The state machine of one family, against the worked example of eight units."""

import copy
import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from secateur.methods._move import Move

VALUES = torch.tensor([0, 0, 0, 0, 0.1, 0.2, 0.3, 0.4], dtype=torch.float64)


def measured(move: Move, values: torch.Tensor) -> None:
    """Show a move every half of its search space once, or the chosen set; damages add up."""
    inside = move.space.nonzero().flatten().tolist()
    sets = itertools.combinations(inside, len(inside) // 2)
    if move.is_checking:
        sets = [move.chosen.nonzero().flatten().tolist()]
    for chosen in sets:
        off = torch.zeros(1, len(values), dtype=torch.bool)
        off[0, list(chosen)] = True
        # What is gone is no part of the output any more.
        energy = values[move.active].sum()
        move.take_masks(off, values[list(chosen)].sum()[None], energy[None])


def run(move: Move, values: torch.Tensor, tolerance: float, most: int = 100) -> list:
    """Run until the move gives up; return what each half did."""
    history = []
    for _ in range(most):
        before = int(move.space.sum())
        if move.is_quadratic:
            move.take_gram(torch.diag(values * move.active), values[move.active].sum())
        else:
            measured(move, values)
            halves = move._sampled()[move.space]
        going = move.conclude(tolerance)
        if move.is_checking:
            measured(move, values)
            going = move.conclude(tolerance)
        if len(going):
            move.take_away(going)
        entry = (before, going.tolist())
        history.append(entry if move.is_quadratic else (*entry, halves.tolist()))
        if move.failures:
            break
    return history


def test_the_worked_example_prunes_the_four_zeros_in_three_moves_and_eight_halves():
    move = Move(8, "cpu")
    history = run(move, VALUES, 0.01)
    assert [size for size, _, _ in history] == [8, 4, 6, 3, 5, 2, 4, 2]
    assert [gone for _, gone, _ in history] == [[], [0, 1], [], [2], [], [3], [], []]
    assert move.active.tolist() == [False] * 4 + [True] * 4
    damages = [torch.tensor(values, dtype=torch.float64) for _, _, values in history]
    expected = [
        [3 / 7] * 4 + [3.4 / 7, 3.8 / 7, 4.2 / 7, 4.6 / 7],
        [0, 0, 0, 0],
        [0.4, 0.4, 0.46, 0.52, 0.58, 0.64],
        [0, 0, 0.1],
        [0.25, 0.325, 0.4, 0.475, 0.55],
        [0, 0.1],
        [0.4, 1.4 / 3, 1.6 / 3, 0.6],
        [0.1, 0.2],
    ]
    for found, wanted in zip(damages, expected, strict=True):
        assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_inner_products_take_the_same_way_without_any_masks():
    move = Move(8, "cpu")
    move.measure_inner_products()
    history = run(move, VALUES, 0.01)
    assert [gone for _, gone in history] == [[0, 1], [2], [3], []]
    assert move.active.tolist() == [False] * 4 + [True] * 4


def test_a_tolerance_of_zero_takes_nothing_not_even_the_dead():
    move = Move(8, "cpu")
    run(move, VALUES, 0.0)
    assert bool(move.active.all())
    assert move.failures == 1


def test_an_endless_tolerance_takes_half_each_time():
    move, sizes = Move(9, "cpu"), []
    values = torch.arange(1.0, 10.0).double()
    while move.num_active > 1:
        run(move, values, math.inf, most=1)
        sizes.append(move.num_active)
    assert sizes == [5, 3, 2, 1]
    assert move.active.nonzero().tolist() == [[8]]


def test_three_units_are_halved_to_one():
    move = Move(3, "cpu")
    history = run(move, torch.tensor([0.5, 0.0, 0.5]).double(), 0.01)
    assert history[0][:2] == (3, [1])


def test_a_chosen_set_whose_own_damage_is_too_large_does_not_go():
    """Two units that stand in for each other: either can go, not both."""
    move = Move(4, "cpu")
    for pair in itertools.combinations(range(4), 2):
        off = torch.zeros(1, 4, dtype=torch.bool)
        off[0, list(pair)] = True
        damage = 0.0 if pair != (2, 3) else 5.0
        move.take_masks(off, torch.tensor([damage]).double(), torch.ones(1).double())
    assert not len(move.conclude(0.5))
    chosen = move.chosen.nonzero().flatten().tolist()
    assert chosen == [0, 1]
    off = move.chosen[None]
    move.take_masks(off, torch.tensor([0.6]).double(), torch.ones(1).double())
    assert not len(move.conclude(0.5))
    assert bool(move.active.all())
    assert move.space.nonzero().flatten().tolist() == chosen


def test_inner_products_verify_the_chosen_set_itself():
    """Units 0 and 1 add up, unit 2 cancels either: T is 2/9 for all, the damage of {0, 1} 4/9."""
    gram = torch.tensor([[1, 1, -2, 0], [1, 1, -2, 0], [-2, -2, 4, 0], [0, 0, 0, 0]]).double()
    move = Move(4, "cpu")
    move.measure_inner_products()
    move.take_gram(gram, torch.tensor(9.0).double())
    assert move.conclude(0.3).tolist() == [0]


def test_what_was_not_measured_or_is_not_finite_takes_no_part():
    move = Move(2, "cpu")
    off = torch.tensor([[True, False], [False, True], [True, False]])
    nan = float("nan")
    move.take_masks(
        off, torch.tensor([1.0, nan, 3.0]).double(), torch.tensor([1.0, 1.0, 0.0]).double()
    )
    assert move.moment.diagonal().tolist() == [1, 0]
    assert move.cross.tolist() == [1, 0]


def test_a_family_that_was_never_measured_gives_up():
    move = Move(2, "cpu")
    assert not len(move.conclude(math.inf))
    assert move.failures == 1
    assert not move.is_checking


def test_a_saved_move_continues_from_the_middle_of_a_half():
    move = Move(8, "cpu")
    measured(move, VALUES)
    move.steps = 3
    again = Move(8, "cpu")
    again.load_state_dict(copy.deepcopy(move.state_dict()))
    assert again.steps == 3
    assert run(again, VALUES, 0.01) == run(move, VALUES, 0.01)


def test_a_saved_move_with_inner_products_continues():
    move, again = Move(8, "cpu"), Move(8, "cpu")
    move.measure_inner_products()
    move.take_gram(torch.diag(VALUES), VALUES.sum())
    again.load_state_dict(copy.deepcopy(move.state_dict()))
    assert again.is_quadratic
    assert again.conclude(0.01).tolist() == move.conclude(0.01).tolist() == [0, 1]


def test_large_families_keep_plain_means_that_choose_the_same_dead_units(monkeypatch):
    monkeypatch.setattr("secateur.methods._move.MAX_FITTED", 4)
    move = Move(8, "cpu")
    assert move.moment.shape == (8,)
    history = run(move, VALUES, 0.01)
    assert [gone for _, gone, _ in history] == [[], [0, 1], [], [2], [], [3], [], []]


@pytest.mark.parametrize("num_rows", [1, 6])
def test_masks_lie_in_the_search_space(num_rows):
    move = Move(6, "cpu")
    move.space = torch.tensor([True, False, True, True, False, True])
    first, second = move.masks(num_rows, torch.Generator().manual_seed(0))
    for rows in (first, second):
        assert rows.shape == (num_rows, 6)
        assert rows.sum(dim=1).tolist() == [2] * num_rows
        assert not (rows & ~move.space).any()
