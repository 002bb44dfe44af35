import math

import pytest
import torch
from torch import Tensor

from secateur.errors import UsageError
from secateur.methods.mask_rules import SAP, pq_index

PAIRS = [(1.0, 2.0), (0.5, 1.0)]
ONE_TO_FOUR = torch.tensor([1.0, -2.0, 3.0, -4.0])


def prune(rule: SAP, *tensors: Tensor, kept: list[Tensor] | None = None) -> list[Tensor]:
    weights = {str(number): tensor for number, tensor in enumerate(tensors)}
    masks = kept or [torch.ones_like(tensor, dtype=torch.bool) for tensor in tensors]
    before = {str(number): mask for number, mask in enumerate(masks)}
    return list(rule.next_masks(weights, before, torch.Generator()).values())


@pytest.mark.parametrize(
    ("pair", "index", "bound"), [((1.0, 2.0), 0.0871, 10 / 3), ((0.5, 1.0), 0.0556, 3.777)]
)
def test_one_two_three_four(pair, index, bound):
    """(1, 2): 1 - 2.5 / sqrt(7.5), 4 * 2.5^2 / 7.5 = 3.33. (.5, 1): mean of roots 1.5366, squared
    2.3611, over 2.5 is 0.9444; 4 * 0.9444 = 3.78. Both keep all four."""
    p, q = pair
    assert pq_index(ONE_TO_FOUR, p, q) == pytest.approx(index, abs=5e-5)
    assert 4 * (1 - pq_index(ONE_TO_FOUR, p, q)) ** (p * q / (q - p)) == pytest.approx(
        bound, abs=2e-3
    )
    assert SAP(p=p, q=q).lower_bound(ONE_TO_FOUR) == 4
    assert bool(prune(SAP(p=p, q=q), ONE_TO_FOUR)[0].all())


@pytest.mark.parametrize("pair", PAIRS)
def test_equal_magnitudes_have_index_zero_and_all_stay(pair):
    weights = torch.full((7, 9), -0.3)
    weights[::2] = 0.3
    assert pq_index(weights, *pair) == pytest.approx(0, abs=1e-15)
    assert bool(prune(SAP(p=pair[0], q=pair[1]), weights)[0].all())


@pytest.mark.parametrize("pair", PAIRS)
def test_one_weight_among_zeros_has_the_highest_index_and_alone_has_to_stay(pair):
    p, q = pair
    weights = torch.zeros(50)
    weights[17] = 3.0
    assert pq_index(weights, p, q) == pytest.approx(1 - 50 ** (1 / q - 1 / p), rel=1e-12)
    assert SAP(p=p, q=q).lower_bound(weights) == 1


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("k", [1, 2, 7, 49, 500, 999, 1000])
def test_k_equal_weights_among_zeros_are_what_has_to_stay(pair, k):
    weights = torch.zeros(1000)
    weights[torch.randperm(1000)[:k]] = 0.7
    assert SAP(p=pair[0], q=pair[1]).lower_bound(weights) == k


@pytest.mark.parametrize(
    ("draw", "shares"),
    [
        (lambda n: torch.randn(n), (0.6366, 0.8472)),
        (lambda n: torch.distributions.Laplace(0.0, 1.0).sample((n,)), (0.5000, 0.7854)),
        (lambda n: torch.rand(n) * 2 - 1, (0.7500, 0.8889)),
    ],
    ids=["gauss", "laplace", "uniform"],
)
def test_how_much_stays_of_known_distributions(draw, shares):
    """Gauss 2/pi, Laplace 1/2 and pi/4, uniform 3/4 and 8/9; 400,000 draws are good to 0.003."""
    weights = draw(400_000)
    for (p, q), share in zip(PAIRS, shares, strict=True):
        (mask,) = prune(SAP(p=p, q=q), weights)
        assert float(mask.double().mean()) == pytest.approx(share, abs=3e-3)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_closed_forms_of_the_bound(pair):
    """m/d = (mean |w|^p)^2 / mean |w|^2p for both pairs, as q = 2p."""
    weights = torch.randn(1234).double()
    power = weights.abs() ** pair[0]
    closed = float(power.mean() ** 2 / power.square().mean())
    assert SAP(p=pair[0], q=pair[1]).lower_bound(weights) == math.ceil(1234 * closed)


def test_eta_lowers_the_bound_by_its_power():
    """(1 + eta)^(-q/(q-p)): with (1, 2) and eta = 1 a quarter."""
    weights = torch.ones(400)
    assert SAP(eta=1.0).lower_bound(weights) == 100
    assert SAP(p=0.5, q=1.0, eta=1.0).lower_bound(weights) == 100


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1e3, 1e200])
def test_the_index_does_not_change_with_scale(scale):
    weights = torch.randn(300).double()
    for pair in PAIRS:
        assert pq_index(scale * weights, *pair) == pytest.approx(pq_index(weights, *pair))


def test_the_index_does_not_change_when_every_weight_is_doubled():
    weights = torch.randn(300)
    for pair in PAIRS:
        twice = torch.cat([weights, weights])
        assert pq_index(twice, *pair) == pytest.approx(pq_index(weights, *pair), rel=1e-12)


def test_the_index_of_zeros_is_zero():
    assert pq_index(torch.zeros(5)) == 0.0


def test_beta_limits_what_goes_and_gamma_multiplies_it():
    weights = torch.zeros(100)
    weights[:3] = 1.0  # m = 3: 97 are free
    assert int(prune(SAP(), weights)[0].sum()) == 10
    assert int(prune(SAP(beta=0.5), weights)[0].sum()) == 50
    laplace = torch.distributions.Laplace(0.0, 1.0).sample((10_000,))
    free = 10_000 - SAP().lower_bound(laplace)
    assert int((~prune(SAP(gamma=0.3), laplace)[0]).sum()) == math.floor(0.3 * free)


def test_exactly_the_free_weights_go_and_they_are_the_smallest_of_all_tensors():
    tensors = [torch.randn(40, 30), 3 * torch.randn(200)]
    masks = prune(SAP(), *tensors)
    pooled = torch.cat([tensor.flatten() for tensor in tensors])
    mask = torch.cat([mask.flatten() for mask in masks])
    assert int((~mask).sum()) == 1400 - SAP().lower_bound(pooled)
    assert pooled[~mask].abs().max() < pooled[mask].abs().min()


def test_only_the_weights_that_are_left_count():
    """Masked zeros must not make the rest look unequal: the index is that of the survivors."""
    weights = torch.cat([torch.zeros(900), torch.full((100,), 0.5)])
    kept = torch.arange(1000) >= 900
    assert torch.equal(prune(SAP(), weights, kept=[kept])[0], kept)


def test_masking_nothing_of_nothing():
    kept = torch.zeros(5, dtype=torch.bool)
    assert torch.equal(prune(SAP(), torch.randn(5), kept=[kept])[0], kept)


@pytest.mark.parametrize(
    "settings", [{"p": 2.0, "q": 1.0}, {"p": 0.0}, {"eta": -0.1}, {"gamma": 0.0}, {"beta": 1.0}]
)
def test_settings_without_meaning_are_refused(settings):
    with pytest.raises(UsageError, match=r"^SAP\(.*\) has no meaning: it needs 0 < p < q, eta >="):
        SAP(**settings)
