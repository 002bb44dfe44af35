"""Identities of the Taylor scores: Molchanov et al. 2019."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from secateur.gates import Gates
from secateur.methods.scores import Oracle, Taylor, TaylorWeights, weight_score_named
from secateur.methods.scores._measuring import measuring, take_gradients
from secateur.structure import trace
from tests.methods.scores.subjects import batches_for, cross_entropy, subject_of, total
from tests.structures import convnet, mlp, residual


def gate_gradients(model, structure, loss, *, batch_statistics=False):
    """The gradients the scores square, and those of all parameters beside them."""
    gates = Gates(model, structure, structure.everything())
    with measuring(model, batch_statistics=batch_statistics):
        take_gradients(model, loss(model))
        return gates.gradients()[0], {n: p.grad.clone() for n, p in model.named_parameters()}


def two_units():
    """y = 2 relu(x) + 5 relu(3 x), so that for x > 0 unit 0 gives 2 x and unit 1 gives 15 x."""
    model = nn.Sequential(nn.Linear(1, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [3.0]]))
        model[2].weight.copy_(torch.tensor([[2.0, 5.0]]))
    return model, trace(model, torch.zeros(1, 1))


def inputs(*values):
    return (torch.tensor(values).reshape(-1, 1), None)


def test_hand_computed_gradients_are_squared_batch_by_batch():
    model, structure = two_units()
    batches = [inputs(1.0), inputs(-1.0), inputs(3.0)]
    score_U = Taylor().units(subject_of(model, structure, batches=batches, loss=total))
    # dL/dz = (2, 15), (0, 0), (6, 45); squares (4, 225), (0, 0), (36, 2025); means over 3 batches
    assert_close(score_U, torch.tensor([40 / 3, 2250 / 3], dtype=torch.float64))


def test_hand_computed_squares_of_weights_in_front_of_a_unit():
    model, structure = two_units()
    batches = [inputs(1.0), inputs(-1.0), inputs(3.0)]
    score_U = TaylorWeights().units(subject_of(model, structure, batches=batches, loss=total))
    assert_close(score_U, torch.tensor([40 / 3, 2250 / 3], dtype=torch.float64))  # one weight each
    weights = weight_score_named("taylor").weights(
        subject_of(model, structure, batches=batches, loss=total),
        {"2.weight": torch.tensor([[True, False]])},
    )
    assert_close(weights["2.weight"].double(), torch.tensor([[40 / 3, 0.0]]).double())


def test_hand_computed_weights_are_squared_one_by_one_where_a_gate_adds_them_first():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2.0], [-4.0, 5.0]]))
        model[0].bias.copy_(torch.tensor([3.0, 0.0]))
        model[2].weight.copy_(torch.tensor([[1.0, -2.0]]))
    subject = subject_of(
        model,
        trace(model, torch.zeros(1, 2)),
        batches=[(torch.ones(1, 2), None)],
        loss=total,
    )
    # w dL/dw: (1, 2, bias 3) and -2 x (-4, 5, bias 0)
    wanted = [1.0 + 4.0 + 9.0, 4 * (16.0 + 25.0)]
    assert_close(TaylorWeights().units(subject), torch.tensor(wanted, dtype=torch.float64))
    assert_close(Taylor().units(subject), torch.tensor([36.0, 4.0], dtype=torch.float64))


def test_first_order_is_exact_where_the_loss_is_linear_in_the_gates():
    model, structure, example = mlp()
    model[3] = nn.Identity()  # what follows the first family is linear
    model.double()
    batch = (example.double(), None)
    subject = subject_of(model, structure, batches=[batch], loss=total)
    assert_close(Taylor().units(subject)[:5], Oracle().changes(subject)[:5] ** 2)


def test_a_gate_behind_a_batch_norm_and_relu_has_the_derivative_of_its_scale_and_shift():
    built = convnet()
    model, structure, _ = built
    model.double()
    x, y = batches_for(built, number=1)[0]
    gradient_U, grads = gate_gradients(
        model, structure, lambda model: cross_entropy(model, (x.double(), y))
    )
    wanted = [
        bn.weight.detach() * grads[f"{name}.weight"] + bn.bias.detach() * grads[f"{name}.bias"]
        for name, bn in (("bn1", model.bn1), ("bn2", model.bn2))
    ]
    assert_close(gradient_U, torch.cat(wanted))


def test_a_gate_behind_a_layer_without_norm_has_the_derivative_of_its_row_and_bias():
    built = mlp()
    model, structure, _ = built
    model.double()
    x, y = batches_for(built, number=1)[0]
    gradient_U, grads = gate_gradients(
        model, structure, lambda model: cross_entropy(model, (x.double(), y))
    )
    wanted = [
        (model[i].weight.detach() * grads[f"{i}.weight"]).sum(dim=1)
        + model[i].bias.detach() * grads[f"{i}.bias"]
        for i in (0, 2)
    ]
    assert_close(gradient_U, torch.cat(wanted))


def test_rows_in_front_of_a_batch_norm_of_batch_statistics_have_no_joint_derivative():
    """Scaling such a row changes nothing, which is why the joint form of weights is not offered."""
    built = convnet()
    model, structure, _ = built
    model.double()
    for bn in (model.bn1, model.bn2):
        bn.eps = 1e-14
    x, y = batches_for(built, number=1)[0]
    gradient_U, grads = gate_gradients(
        model,
        structure,
        lambda model: cross_entropy(model, (x.double(), y)),
        batch_statistics=True,
    )
    product = model.conv1.weight.detach() * grads["conv1.weight"]
    assert_close(product.sum(dim=(1, 2, 3)), torch.zeros(4, dtype=torch.float64))
    assert product.abs().max() > 1e-3
    assert gradient_U[:4].abs().min() > 1e-4


@pytest.mark.parametrize("build", [mlp, convnet, residual])
def test_gate_gradients_are_finite_differences_of_the_loss(build):
    """A channel of a residual stream has one gate: all its uses move together."""
    built = build()
    model, structure, _ = built
    model.double()
    x, y = batches_for(built, number=1)[0]
    gates = Gates(model, structure, structure.everything())

    def loss_at(gate_U):
        changed = dict(zip(gates.names, gates.weights_at(gate_U), strict=True))
        outputs = torch.func.functional_call(model.eval(), changed, (x.double(),))
        return float(nn.functional.cross_entropy(outputs, y).detach())

    gradient_U, _ = gate_gradients(
        model, structure, lambda model: cross_entropy(model, (x.double(), y))
    )
    small = 1e-6
    for unit in range(structure.num_units):
        step_U = torch.zeros(structure.num_units, dtype=torch.float64)
        step_U[unit] = small
        slope = (loss_at(1 + step_U) - loss_at(1 - step_U)) / (2 * small)
        assert gradient_U[unit].item() == pytest.approx(slope, rel=1e-4, abs=1e-8)


def test_open_gates_leave_outputs_bit_equal():
    model, structure, example = residual()
    gates = Gates(model, structure, structure.everything())
    ones_U = torch.ones(structure.num_units)
    changed = dict(zip(gates.names, gates.weights_at(ones_U), strict=True))
    model.eval()
    assert torch.equal(torch.func.functional_call(model, changed, (example,)), model(example))


def test_the_order_is_that_of_the_oracle_on_a_trained_network():
    from scipy.stats import spearmanr

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 10, generator=generator)
    y = (x[:, :3] * torch.tensor([3.0, 2.0, 1.0])).argmax(dim=1)
    model = nn.Sequential(nn.Linear(10, 48), nn.ReLU(), nn.Linear(48, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        cross_entropy(model, (x, y)).backward()
        optimizer.step()
    subject = subject_of(model, trace(model, x[:1]), batches=[(x, y)])
    correlation = spearmanr(Taylor().units(subject), Oracle().units(subject)).statistic
    assert correlation > 0.8


def test_products_whose_squares_are_below_the_smallest_float32_still_count():
    model, structure = two_units()
    batches = [inputs(1e-24)]
    score_U = TaylorWeights().units(subject_of(model, structure, batches=batches, loss=total))
    assert_close(score_U, torch.tensor([4e-48, 225e-48], dtype=torch.float64), atol=0, rtol=1e-6)
