"""The cost polynomial against hand counts, enumeration and finite differences."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from secateur.structure import Factor, Polynomial, Term

# Two families of 3 and 2 units and two layers. The first term meets family 0 on both sides, as a
# convolution inside a residual stream does; the second joins the families inside layer 1.
_NUM_UNITS = [3, 2]
_TERMS = [
    Term(2.0, (Factor(1.0, ((0, 1.0),)), Factor(0.0, ((0, 2.0), (1, 1.0)))), (0,)),
    Term(5.0, (Factor(0.0, ((0, 1.0),)), Factor(0.0, ((1, 3.0),))), (0, 1)),
    Term(7.0),
]


@pytest.fixture
def polynomial():
    return Polynomial(_TERMS, _NUM_UNITS, 2)


def _by_hand(n: int, m: int, a: float, b: float) -> float:
    return 2 * (1 + n) * (2 * n + m) * a + 5 * n * (3 * m) * a * b + 7


def test_the_value_is_the_sum_of_products_at_every_vertex(polynomial):
    for n, m, a, b in itertools.product(range(4), range(3), (0, 1), (0, 1)):
        value = polynomial.value(torch.tensor([n, m]), torch.tensor([a, b]))
        assert value == _by_hand(n, m, a, b)


def test_everything_is_live_when_nothing_is_said(polynomial):
    assert polynomial.value() == _by_hand(3, 2, 1, 1)


def test_the_expectation_is_the_mean_over_all_masks(polynomial):
    theta = torch.tensor([0.3, 0.9, 0.5, 0.2, 0.7], dtype=torch.float64)
    phi = torch.tensor([0.6, 0.25], dtype=torch.float64)
    probability = torch.cat([theta, phi])
    mean = 0.0
    for bits in itertools.product((0, 1), repeat=7):
        mask = torch.tensor(bits)
        weight = torch.where(mask == 1, probability, 1 - probability).prod()
        n, m = int(mask[:3].sum()), int(mask[3:5].sum())
        mean += float(weight) * _by_hand(n, m, bits[5], bits[6])
    assert_close(polynomial.expectation(theta, phi), torch.tensor(mean, dtype=torch.float64))


def test_the_gradient_is_that_of_finite_differences(polynomial):
    generator = torch.Generator().manual_seed(0)
    theta = torch.rand(5, generator=generator, dtype=torch.float64)
    phi = torch.rand(2, generator=generator, dtype=torch.float64)
    d_theta, d_phi = polynomial.gradient(theta, phi)
    step = 1e-4

    def slope(point, axis, other, swap):
        up, down = point.clone(), point.clone()
        up[axis] += step
        down[axis] -= step
        pairs = [(x, other) if not swap else (other, x) for x in (up, down)]
        high, low = (polynomial.expectation(*pair) for pair in pairs)
        return (high - low) / (2 * step)

    # Expectations are affine in one coordinate: central differences are exact up to rounding.
    for u in range(5):
        assert_close(d_theta[u], slope(theta, u, phi, swap=False), rtol=1e-8, atol=1e-8)
    for layer in range(2):
        assert_close(d_phi[layer], slope(phi, layer, theta, swap=True), rtol=1e-8, atol=1e-8)


def test_a_constant_cost_has_no_gradient():
    polynomial = Polynomial([Term(4.0)], [2], 1)
    d_theta, d_phi = polynomial.gradient(torch.ones(2), torch.ones(1))
    assert polynomial.value() == 4.0
    assert_close(d_theta, torch.zeros(2, dtype=torch.float64))
    assert_close(d_phi, torch.zeros(1, dtype=torch.float64))


def test_three_factors_of_one_family_are_refused():
    factor = Factor(0.0, ((0, 1.0),))
    with pytest.raises(ValueError, match="3 pairs of factors that depend on the same family"):
        Polynomial([Term(1.0, (factor, factor, factor))], [2], 0)
