"""What a run writes down."""

import pytest
import torch

from secateur.methods._nesting import Nesting
from secateur.methods._summary import as_decision, record
from tests.structures import residual


def mask(*numbers):
    going = torch.zeros(14, dtype=torch.bool)
    going[list(numbers)] = True
    return going


def test_units_that_leave_with_their_layer_are_not_listed():
    structure = residual().structure
    decision = as_decision(structure, Nesting(structure, "cpu"), mask(0, 2, 4, 5, 8, 12), mask())
    assert {family: units.tolist() for family, units in decision.units.items()} == {
        0: [0, 2],
        2: [1],
    }
    assert decision.layers == (0,)


def test_what_is_gone_is_not_listed_again():
    structure = residual().structure
    decision = as_decision(structure, Nesting(structure, "cpu"), mask(0, 1, 8, 13), mask(0, 13))
    assert {family: units.tolist() for family, units in decision.units.items()} == {0: [1]}
    assert decision.layers == ()


def test_a_record_counts_shares_of_the_starting_network_and_summarises_what_is_left():
    structure = residual().structure
    chance = torch.ones(14, dtype=torch.float64)
    chance[:4] = torch.tensor([0.0, 0.2, 0.6, 1.0])
    chance[12] = 0.5
    left = ~mask(0)
    found = record(structure, 0.3, chance, left)
    # Stream 1.8 of 4 units: 2·36·27·1.8 + 6·1.8 + 2·36·18·1.8·(0.5·3 + 5) of 49272.
    macs = 2 * 36 * 27 * 1.8 + 6 * 1.8 + 2 * 36 * 18 * 1.8 * 6.5
    assert found["expected_macs_share"] == pytest.approx(macs / 49272)
    assert found["theta"]["conv0"] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 3])
    assert found["phi"] == {"block1": 0.5, "block2": 1.0}
    assert found["price"] == 0.3
