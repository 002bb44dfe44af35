import torch
from torch.testing import assert_close

from secateur.gates import Gates
from tests.structures import residual


def test_weights_at_zero_and_one_are_those_of_closed_and_open_gates():
    model, structure, _ = residual()
    gates = Gates(model, structure, structure.everything())
    units_on_U = torch.rand(structure.num_units) > 0.4
    wanted = gates.weights_at(units_on_U.float())
    assert [p.data_ptr() for p in gates.parameters] != [w.data_ptr() for w in wanted]
    with gates.also_closed(units_on_U, torch.ones(structure.num_layers, dtype=torch.bool)):
        assert not units_on_U.all()
        for parameter, weight in zip(gates.parameters, wanted, strict=True):
            assert torch.equal(parameter.data, weight)


def test_weights_in_between_are_products_with_the_gate():
    model, structure, _ = residual()
    gates = Gates(model, structure, structure.everything())
    gate_U = torch.ones(structure.num_units)
    gate_U[1] = 0.25  # second channel of the residual stream, which fc consumes
    weight = dict(zip(gates.names, gates.weights_at(gate_U), strict=True))["fc.weight"]
    assert_close(weight[:, 1], model.fc.weight.data[:, 1] * 0.25)
    assert torch.equal(weight[:, 0], model.fc.weight.data[:, 0])


def test_directions_are_the_slope_of_weights_at():
    model, structure, _ = residual()
    model.double()
    gates = Gates(model, structure, structure.everything())
    speed_U = torch.randn(structure.num_units, dtype=torch.float64)
    ones_U, small = torch.ones_like(speed_U), 1e-6
    ahead = gates.weights_at(ones_U + small * speed_U)
    behind = gates.weights_at(ones_U - small * speed_U)
    for one, other, slope in zip(ahead, behind, gates.directions(speed_U), strict=True):
        assert_close((one - other) / (2 * small), slope, rtol=1e-6, atol=1e-8)
