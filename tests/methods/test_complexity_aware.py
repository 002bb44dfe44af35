"""The settings: what is refused, and how the reference is read."""

import dataclasses

import pytest

from secateur.errors import UsageError
from secateur.methods import ComplexityAware, Estimator
from tests.methods.planted import Residual, begin, perceptron, traced
from tests.structures import mlp


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"neither a price nor a target was given, and exactly one of price, target_macs"),
        ({"price": 0.3, "target_macs": 0.5}, r"price=0\.3 and target_macs=0\.5 was given"),
        ({"price": -1.0}, r"price=-1\.0 is not a price\. Give training loss in nats"),
        ({"price": float("nan")}, r"price=nan is not a price"),
        ({"target_macs": 1.0}, r"target_macs=1\.0 is outside \(0, 1\)\. Give a share"),
        ({"target_params": 0.0}, r"target_params=0\.0 is outside \(0, 1\)"),
        ({"price": 1, "compute_share": 1.5}, r"compute_share=1\.5 is outside \[0, 1\]"),
        ({"price": 1, "layer_share": -0.1}, r"layer_share=-0\.1 is outside \[0, 1\]"),
        ({"price": 1, "settle_at": 0.0}, r"settle_at=0\.0 is outside \(0, 1\]"),
        ({"price": 1, "patience": 0}, r"patience=0 is too few: give at least patience=1"),
        ({"price": 1, "warmup": -1}, r"warmup=-1 is too few: give at least warmup=0"),
        ({"price": 1, "hold": 0}, r"hold=0 is too few: give at least hold=1"),
        (
            {"price": 1, "estimator": "guess"},
            r"estimator='guess' is not known\. Choose one of 'curv",
        ),
        ({"price": 1, "reference": 0.0}, r"reference=0\.0 is not a complexity\. Give positive"),
        ({"price": 1, "reference": 5.0, "compute_share": 0.5}, r"Give both, such as reference="),
    ],
)
def test_a_setting_that_cannot_work_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        ComplexityAware(**settings)


def test_the_defaults_are_those_of_the_documentation():
    defaults = {field.name: field.default for field in dataclasses.fields(ComplexityAware)}
    assert defaults == {
        "price": None,
        "target_macs": None,
        "target_params": None,
        "compute_share": None,
        "layer_share": 0.5,
        "reference": None,
        "patience": None,
        "warmup": None,
        "hold": None,
        "settle_at": 0.7,
        "estimator": Estimator.CURVATURE_CORRECTED,
    }


def test_an_estimator_can_be_given_by_its_name():
    structure = mlp().structure
    search = begin(ComplexityAware(price=1, estimator="trapezoid"), structure, 100)
    assert search.step == 0


def test_a_target_below_the_smallest_network_is_refused():
    # 5 inputs, 4 hidden units, 3 outputs: (5 + 3) · 4 MACs; one unit is left at a quarter.
    structure = traced(perceptron(2, 2), 5)
    with pytest.raises(UsageError, match=r"target_macs=0\.2 cannot be reached: .* has 0\.25 of"):
        begin(ComplexityAware(target_macs=0.2), structure, 100)
    begin(ComplexityAware(target_macs=0.3), structure, 100)


def test_a_target_of_layers_only_can_be_reached_by_layers_only():
    # 12 · 2 of 144 MACs are stem and head of one unit; without units: 48 of 144 = 0.333.
    structure = traced(Residual(), 6)
    with pytest.raises(UsageError, match=r"still has 0\.333 of the reference"):
        begin(ComplexityAware(target_macs=0.3, layer_share=1.0), structure, 100)
    begin(ComplexityAware(target_macs=0.3), structure, 100)


@pytest.mark.parametrize(
    ("reference", "compute_share"),
    [(64.0, 1.0), ((64.0, 47.0), 0.5), ((64.0, 47.0), 1.0), (94.0, 0.0)],
)
def test_a_reference_scales_every_price(reference, compute_share):
    # The network itself has 32 MACs and 5·4 + 4 + 4·3 + 3 = 39 parameters.
    structure = traced(perceptron(2, 2), 5)
    own = begin(ComplexityAware(price=1, compute_share=compute_share), structure, 100)
    search = begin(
        ComplexityAware(price=1, compute_share=compute_share, reference=reference), structure, 100
    )
    macs, params = reference if isinstance(reference, tuple) else (reference, reference)
    per_unit = compute_share * 8 / macs + (1 - compute_share) * 9 / params
    per_own = compute_share * 8 / 32 + (1 - compute_share) * 9 / 39
    assert float(search._price_S[0]) == pytest.approx(per_unit)
    assert float(own._price_S[0]) == pytest.approx(per_own)


def test_the_cost_of_another_network_is_a_reference():
    structure, larger = traced(perceptron(2, 2), 5), traced(perceptron(4, 4), 5)
    search = begin(ComplexityAware(price=1, reference=larger.cost), structure, 100)
    assert float(search._price_S[0]) == pytest.approx(8 / 64)


def test_a_target_for_parameters_prices_parameters():
    structure = traced(perceptron(2, 2), 5)
    search = begin(ComplexityAware(target_params=0.6), structure, 100)
    assert float(search._unit_price_S[0]) == pytest.approx(9 / 39)
