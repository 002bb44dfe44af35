"""C and its derivative against counting, finite differences and hand arithmetic."""

import itertools

import pytest
import torch
from torch.testing import assert_close

from secateur.methods._nesting import Nesting
from secateur.methods._pricing import HardCost, Pricing, mix
from secateur.structure import Cost, Factor, Family, Layer, Polynomial, Structure, Term
from tests.structures import convnet, mlp, residual


def pricing(structure, alpha=1.0, beta=0.5):
    reference = (structure.cost.macs.value(), structure.cost.params.value())
    complexity = mix(structure, alpha, reference)
    nesting = Nesting(structure, "cpu")
    return Pricing(complexity, nesting, beta, "cpu"), HardCost(complexity, structure)


def count_residual(kept):
    """MACs and parameters of `residual()`, by hand: 2 images of 6x6."""
    stream, one, two = (int(sum(kept[a:b])) for a, b in ((0, 4), (4, 7), (7, 12)))
    macs, params = 2 * 36 * 27 * stream + 2 * 3 * stream, 27 * stream + 2 * stream + 3 * stream + 3
    for inner, on in ((one, kept[12]), (two, kept[13])):
        if on:
            macs += 2 * 36 * 9 * (stream * inner + inner * stream)
            params += 9 * stream * inner * 2 + 2 * inner + 2 * stream
    return macs, params


def test_complexity_equals_a_count_at_every_vertex():
    structure = residual().structure
    macs_0, params_0 = count_residual([1] * 14)
    soft, hard = pricing(structure, alpha=0.3)
    for kept in itertools.islice(itertools.product([0, 1], repeat=14), 0, None, 37):
        macs, params = count_residual(kept)
        wanted = 0.3 * macs / macs_0 + 0.7 * params / params_0
        vertex_S = torch.tensor(kept, dtype=torch.float64)
        assert float(soft.share(vertex_S)) == pytest.approx(wanted, rel=1e-12)
        assert hard(vertex_S > 0) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("built", [mlp, convnet, residual])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_price_times_the_chance_of_its_layer_is_the_difference_of_complexity(built, alpha):
    structure = built().structure
    soft, _ = pricing(structure, alpha)
    size = structure.num_units + structure.num_layers
    generator = torch.Generator().manual_seed(5)
    chance_S = 0.2 + 0.7 * torch.rand(size, generator=generator, dtype=torch.float64)
    price_S = soft.price(chance_S, torch.ones(size, dtype=torch.bool))
    around_S = torch.ones(size, dtype=torch.float64)
    if structure.num_layers:
        around_S[4:7], around_S[7:12] = chance_S[12], chance_S[13]
    for s in range(size):
        on_S, off_S = chance_S.clone(), chance_S.clone()
        on_S[s], off_S[s] = 1, 0
        difference = soft.share(on_S) - soft.share(off_S)
        assert_close(price_S[s] * around_S[s], difference, rtol=1e-10, atol=1e-14)


def test_a_unit_in_a_layer_that_is_off_keeps_the_price_it_has_when_the_layer_is_on():
    structure = residual().structure
    soft, _ = pricing(structure)
    chance_S = torch.ones(14, dtype=torch.float64)
    present_S = torch.ones(14, dtype=torch.bool)
    price_on = soft.price(chance_S, present_S)
    chance_S[12] = 0
    price_off = soft.price(chance_S, present_S)
    assert_close(price_off[4:7], price_on[4:7], rtol=1e-6, atol=0)
    assert (price_on[4:7] > 0).all()


def test_what_is_gone_has_no_price_and_no_share():
    structure = residual().structure
    soft, hard = pricing(structure)
    kept = torch.ones(14, dtype=torch.bool)
    kept[12] = False  # layer block1; its three units are left without a place
    chance_S = kept.double()
    present_S = kept.clone()
    present_S[4:7] = False
    price_S = soft.price(chance_S, present_S)
    assert price_S[4:7].tolist() == [0, 0, 0]
    assert price_S[12] == 0
    without_units = kept.clone()
    without_units[4:7] = False
    assert hard(kept) == hard(without_units)


@pytest.mark.parametrize("beta", [0.0, 0.25, 0.5, 1.0])
def test_layer_share_weighs_units_against_layers(beta):
    structure = residual().structure
    even, _ = pricing(structure)
    soft, _ = pricing(structure, beta=beta)
    chance_S, present_S = torch.ones(14).double(), torch.ones(14, dtype=torch.bool)
    ratio = soft.price(chance_S, present_S) / even.price(chance_S, present_S)
    wanted = torch.tensor([2 * (1 - beta)] * 12 + [2 * beta] * 2, dtype=torch.float64)
    assert_close(ratio, wanted)


def test_compute_share_orders_structures_of_opposite_ratios():
    # Family 0: 10 MACs and 1 parameter a unit; family 1: 1 MAC and 5 parameters a unit; two units
    # each. MACs_0 = 22, params_0 = 12. alpha = 1: 10/22 > 1/22. alpha = 0: 1/12 < 5/12.
    families = tuple(
        Family(name=name, kind="neuron", num_units=2, members=()) for name in ("early", "late")
    )
    widths = [Factor(0.0, ((f, 1.0),)) for f in (0, 1)]
    cost = Cost(
        macs=Polynomial([Term(10, (widths[0],)), Term(1, (widths[1],))], [2, 2], 0),
        params=Polynomial([Term(1, (widths[0],)), Term(5, (widths[1],))], [2, 2], 0),
    )
    structure = Structure(
        families=families, layers=(), fixed=(), tensors={}, cost=cost, example=((), {})
    )
    ones, present = torch.ones(4).double(), torch.ones(4, dtype=torch.bool)
    by_macs = pricing(structure, alpha=1.0)[0].price(ones, present)
    by_params = pricing(structure, alpha=0.0)[0].price(ones, present)
    assert_close(by_macs, torch.tensor([10, 10, 1, 1]).double() / 22)
    assert_close(by_params, torch.tensor([1, 1, 5, 5]).double() / 12)


def test_a_layer_inside_another_is_priced_given_that_the_outer_one_is_on():
    # MACs: 4 in the outer layer, 2 more in the inner one; phi = 0.5 and 0.8.
    layers = (
        Layer(name="outer", closing=("o",), tensors=frozenset({"o", "i"}), stubs=()),
        Layer(name="inner", closing=("i",), tensors=frozenset({"i"}), stubs=()),
    )
    polynomial = Polynomial([Term(4, (), (0,)), Term(2, (), (0, 1)), Term(4)], [], 2)
    structure = Structure(
        families=(),
        layers=layers,
        fixed=(),
        tensors={},
        cost=Cost(macs=polynomial, params=polynomial),
        example=((), {}),
    )
    soft, hard = pricing(structure)
    chance = torch.tensor([0.5, 0.8], dtype=torch.float64)
    price = soft.price(chance, torch.ones(2, dtype=torch.bool))
    assert_close(price, torch.tensor([0.56, 0.2], dtype=torch.float64))
    assert hard(torch.tensor([False, True])) == pytest.approx(0.4)
