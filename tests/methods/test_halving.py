import itertools

import pytest
import torch
from torch.testing import assert_close

from secateur.methods._halving import draw_halves, exact_damage, fitted_damage, mean_damage


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def enumerated(damage, num_space: int) -> torch.Tensor:
    """Mean damage over every half that contains each unit, by listing all halves."""
    halves = list(itertools.combinations(range(num_space), num_space // 2))
    return torch.tensor(
        [
            sum(damage(half) for half in halves if unit in half)
            / sum(unit in half for half in halves)
            for unit in range(num_space)
        ],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("num_space", [2, 3, 7, 8])
def test_both_halves_have_half_of_the_space_and_share_nothing(num_space):
    first, second = draw_halves(num_space, 50, seeded())
    for half in (first, second):
        assert half.sum(dim=1).tolist() == [num_space // 2] * 50
    assert not (first & second).any()
    assert len({tuple(row) for row in first.tolist()}) > 1


def test_every_unit_is_drawn_equally_often():
    first, second = draw_halves(9, 20_000, seeded())
    share = torch.cat([first, second]).double().mean(dim=0)
    # Standard error of a share of 4/9 over 40,000 rows is 0.0025.
    assert_close(share, torch.full((9,), 4 / 9, dtype=torch.float64), rtol=0, atol=0.012)


@pytest.mark.parametrize("num_space", [2, 3, 5, 6, 7])
def test_the_closed_form_is_the_mean_over_all_halves(num_space):
    root = torch.randn(num_space, 4, generator=seeded(1), dtype=torch.float64)
    gram = root @ root.t()
    expected = enumerated(lambda half: float(gram[list(half)][:, list(half)].sum()), num_space)
    assert_close(exact_damage(gram), expected)


@pytest.mark.parametrize("num_space", [2, 3, 6, 7])
def test_the_fit_over_all_halves_is_the_plain_mean_even_where_damages_do_not_add_up(num_space):
    root = torch.randn(num_space, 3, generator=seeded(2), dtype=torch.float64)
    gram = root @ root.t()

    def damage(half):
        return float(gram[list(half)][:, list(half)].sum()) ** 1.5

    rows = torch.zeros(0, num_space, dtype=torch.float64)
    values = []
    for half in itertools.combinations(range(num_space), num_space // 2):
        row = torch.zeros(1, num_space, dtype=torch.float64)
        row[0, list(half)] = 1
        rows, values = torch.cat([rows, row]), [*values, damage(half)]
    found = fitted_damage(rows.t() @ rows, rows.t() @ torch.tensor(values, dtype=torch.float64))
    assert_close(found, enumerated(damage, num_space))


def test_additive_damage_is_known_exactly_from_few_halves():
    value = torch.tensor([0, 0, 0, 0, 0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    first, second = draw_halves(8, 20, seeded(3))
    rows = torch.cat([first, second]).double()
    found = fitted_damage(rows.t() @ rows, rows.t() @ (rows @ value))
    # E T_c = v_c + 3/7 (1 - v_c).
    expected = torch.tensor([3 / 7] * 4 + [3.4 / 7, 3.8 / 7, 4.2 / 7, 4.6 / 7], dtype=torch.float64)
    assert_close(found, expected)


def test_sampled_halves_converge_to_the_closed_form():
    root = torch.randn(6, 4, generator=seeded(4), dtype=torch.float64)
    gram = root @ root.t()
    first, second = draw_halves(6, 20_000, seeded(5))
    rows = torch.cat([first, second]).double()
    damage = torch.einsum("ri,ij,rj->r", rows, gram, rows)
    found = fitted_damage(rows.t() @ rows, rows.t() @ damage)
    assert_close(found, exact_damage(gram), rtol=0.02, atol=0.02)


def test_a_unit_that_was_in_no_half_is_infinitely_important():
    row = torch.tensor([[1, 0, 0], [0, 1, 0]], dtype=torch.float64)
    found = fitted_damage(row.t() @ row, row.t() @ torch.tensor([0.5, 0.2], dtype=torch.float64))
    assert found.tolist() == [0.5, 0.2, float("inf")]


def test_the_plain_mean_is_the_mean_over_the_halves_that_contain_a_unit():
    found = mean_damage(torch.tensor([2.0, 4.0, 0.0]), torch.tensor([1.0, 6.0, 0.0]))
    assert found.tolist() == [0.5, 1.5, float("inf")]
