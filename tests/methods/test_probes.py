"""Measured worth: whose turn it is, and what the measurements mean."""

import math

import pytest
import torch

from secateur.methods._probes import Measurements, Situation, Target, random_subset

NO_LAYER = torch.zeros(0, dtype=torch.bool)


def situation(step, measured, *, families=True, phi=1.0):
    layers, num_families = len(measured.rise_L), len(measured.last_F)
    return Situation(
        step=step,
        number=step // 10,
        layers_L=torch.ones(layers, dtype=torch.bool),
        families_F=torch.full((num_families,), families),
        phi_L=torch.full((layers,), phi).double(),
        price_L=torch.full((layers,), 0.1).double(),
    )


def test_every_third_probe_is_a_family_and_the_rest_go_round_the_layers():
    measured = Measurements(3, 2, "cpu")
    turns = [measured.choose(situation(10 * n, measured)) for n in range(1, 10)]
    assert [t.layer for t in turns] == [0, 1, None, 2, 0, None, 1, 2, None]
    assert [t.family for t in turns] == [None, None, 0, None, None, 1, None, None, 0]


def test_an_uncertain_layer_is_measured_more_often():
    measured = Measurements(3, 0, "cpu")
    counts = [0, 0, 0]
    for n in range(1, 60):
        target = measured.choose(situation(10 * n, measured))
        counts[target.layer] += 1
        measured.add_layer(target.layer, 1.0 + (n % 2) * (target.layer == 1))
    assert counts[1] > 1.5 * max(counts[0], counts[2])
    assert min(counts) > 10


def test_layers_alone_and_families_alone_are_probed_every_time():
    layers, families = Measurements(2, 0, "cpu"), Measurements(0, 2, "cpu")
    assert all(layers.choose(situation(10 * n, layers)).layer is not None for n in range(6))
    assert all(families.choose(situation(10 * n, families)).family is not None for n in range(6))
    assert Measurements(0, 0, "cpu").choose(situation(10, Measurements(0, 0, "cpu"))) is None


def test_recent_measurements_of_a_layer_count_more():
    measured = Measurements(1, 0, "cpu")
    for rise in (1.0, 3.0):
        measured.add_layer(0, rise)
    assert float(measured.rise_L[0]) == pytest.approx(2.0)
    for _ in range(20):
        measured.add_layer(0, 5.0)
    assert float(measured.rise_L[0]) == pytest.approx(5.0, abs=0.02)


def test_a_loss_that_is_not_a_number_is_not_a_measurement():
    measured = Measurements(1, 1, "cpu")
    measured.add_layer(0, math.nan)
    ones = torch.ones(2).double()
    measured.add_units(0, ones > 0, math.inf, ones, ones)
    assert float(measured.count_L[0]) == 0
    assert measured.factor().tolist() == [1.0]


def test_the_factor_of_a_family_is_found_through_the_noise_of_first_order():
    # The loss in units' gates is g·(xi - 1) + 7 h (xi - 1)² / 2 with g noise, h claimed: factor 7.
    measured = Measurements(0, 1, "cpu")
    generator = torch.Generator().manual_seed(0)
    h = torch.rand(32, generator=generator).double() * 1e-3
    for _ in range(12):
        g = torch.randn(32, generator=generator).double() * 0.1
        off = random_subset(torch.ones(32, dtype=torch.bool), 4, generator)
        rise = float((-g + 7 * h / 2)[off].sum())
        measured.add_units(0, off, rise, g, h)
    # The prior of half a probe at 1 beside five remembered ones: (35 + 0.5) / 5.5 = 6.45.
    assert float(measured.factor()[0]) == pytest.approx(6.43, abs=0.05)


def test_a_random_subset_takes_open_units_only_and_never_more_than_there_are():
    generator = torch.Generator().manual_seed(0)
    open_U = torch.tensor([True, False, True, True, False])
    for _ in range(20):
        subset = random_subset(open_U, 2, generator)
        assert int(subset.sum()) == 2
        assert not (subset & ~open_U).any()
    assert random_subset(open_U, 5, generator).tolist() == open_U.tolist()


def test_targets_are_compared_by_value():
    assert Target(layer=1) == Target(layer=1)
