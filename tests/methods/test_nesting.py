"""What lies inside which layer."""

import torch

from secateur.methods._nesting import Nesting
from tests.structures import mlp, residual

ON, OFF = True, False


def test_units_of_a_closed_layer_and_nothing_else_are_not_seen():
    nesting = Nesting(residual().structure, "cpu")
    seen = nesting.seen(torch.tensor([OFF, ON]))
    assert seen.tolist() == [ON] * 4 + [OFF] * 3 + [ON] * 5 + [ON, ON]


def test_the_stream_is_seen_while_the_head_uses_it():
    nesting = Nesting(residual().structure, "cpu")
    assert nesting.seen(torch.tensor([OFF, OFF]))[:4].all()


def test_units_vanish_with_the_layer_that_holds_all_of_them():
    nesting = Nesting(residual().structure, "cpu")
    covered = nesting.covered(torch.tensor([OFF, ON]))
    assert covered.nonzero().flatten().tolist() == [7, 8, 9, 10, 11]


def test_the_chance_of_a_unit_is_that_of_its_layer():
    nesting = Nesting(residual().structure, "cpu")
    chance = nesting.chance(torch.tensor([0.25, 0.5], dtype=torch.float64))
    assert chance.tolist() == [1.0] * 4 + [0.25] * 3 + [0.5] * 5 + [1.0, 1.0]


def test_a_model_without_layers_is_always_seen_and_never_covered():
    nesting = Nesting(mlp().structure, "cpu")
    none = torch.zeros(0, dtype=torch.bool)
    assert nesting.seen(none).tolist() == [ON] * 9
    assert not nesting.covered(none).any()
