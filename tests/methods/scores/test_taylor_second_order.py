import pytest
import torch
from torch import nn
from torch.testing import assert_close

from secateur.errors import UsageError
from secateur.gates import Gates
from secateur.methods.scores import Oracle, TaylorSecondOrder
from secateur.methods.scores._measuring import measuring
from secateur.methods.scores._taylor_second_order import (
    Curvature,
    _probe,
    _shrunk,
    differentiable_gradients,
)
from secateur.structure import trace
from tests.methods.scores.subjects import subject_of


def squared(model, batch):
    return (model(batch[0]) - batch[1]).square().mean()


def one_layer(num_units):
    """A hidden layer whose gates enter a squared loss quadratically."""
    model = nn.Sequential(nn.Linear(4, num_units), nn.Tanh(), nn.Linear(num_units, 2)).double()
    batch = (torch.randn(16, 4, dtype=torch.float64), torch.randn(16, 2, dtype=torch.float64))
    return model, trace(model, torch.zeros(1, 4, dtype=torch.float64)), batch


def hessian(model, structure, batch):
    """Oracle: autograd's own Hessian of the loss as a function of gates."""
    gates = Gates(model, structure, structure.everything())

    def loss_at(gate_U):
        changed = dict(zip(gates.names, gates.weights_at(gate_U), strict=True))
        outputs = torch.func.functional_call(model, changed, (batch[0],))
        return (outputs - batch[1]).square().mean()

    ones_U = torch.ones(structure.num_units, dtype=torch.float64)
    return torch.autograd.functional.hessian(loss_at, ones_U)


def test_it_is_the_squared_loss_change_where_the_loss_is_quadratic_in_the_gates():
    model, structure, batch = one_layer(6)
    subject = subject_of(model, structure, batches=[batch], loss=squared)
    assert_close(TaylorSecondOrder().units(subject), Oracle().changes(subject) ** 2)


def estimated(model, structure, batch, num_probes):
    gates = Gates(model, structure, structure.everything())
    curvature = Curvature(structure.everything(), num_probes, torch.Generator().manual_seed(0))
    with measuring(model):
        curvature.measure(gates, differentiable_gradients(squared(model, batch), gates))
    return curvature.diagonal()


def test_unit_vectors_give_the_diagonal_of_the_hessian():
    model = nn.Sequential(
        nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2)
    ).double()
    structure = trace(model, torch.zeros(1, 4, dtype=torch.float64))
    batch = (torch.randn(16, 4, dtype=torch.float64), torch.randn(16, 2, dtype=torch.float64))
    exact_U = hessian(model, structure, batch).diagonal()
    assert_close(estimated(model, structure, batch, num_probes=8), exact_U)


def probes_of(model, structure, batch, num_probes):
    """One estimate a probe with random signs, before anything is averaged or shrunk."""
    gates = Gates(model, structure, structure.everything())
    signs_NU = torch.randint(2, (num_probes, structure.num_units)).double() * 2 - 1
    with measuring(model):
        gradients = differentiable_gradients(squared(model, batch), gates)
        return torch.stack([_probe(gates, gradients, signs_U) for signs_U in signs_NU])


def test_random_signs_estimate_the_diagonal_without_bias():
    """The variance of one probe is the squared sum of the off-diagonal row; five deviations."""
    model, structure, batch = one_layer(8)
    exact_UU = hessian(model, structure, batch)
    off_UU = exact_UU - torch.diag(exact_UU.diagonal())
    deviation_U = (off_UU.square().sum(dim=1) / 2000).sqrt()
    estimate_U = probes_of(model, structure, batch, 2000).mean(dim=0)
    assert ((estimate_U - exact_UU.diagonal()).abs() < 5 * deviation_U).all()


def test_estimates_are_drawn_to_the_mean_by_the_share_of_noise():
    mean_U = torch.tensor([1.0, 3.0, 5.0, 77.0])
    live_U = torch.tensor([True, True, True, False])
    # variance over live units (4 + 0 + 4) / 2 = 4, mean noise 1: three quarters of it are signal
    shrunk_U = _shrunk(mean_U, torch.tensor([0.5, 1.0, 1.5, 99.0]), live_U)
    assert_close(shrunk_U[:3], torch.tensor([1.5, 3.0, 4.5]))
    # more noise than variance: nothing is known of single units
    shrunk_U = _shrunk(mean_U, torch.full((4,), 9.0), live_U)
    assert shrunk_U[:3].tolist() == [3.0, 3.0, 3.0]
    assert _shrunk(mean_U[:1], torch.tensor([9.0]), live_U[:1]).tolist() == [1.0]


def test_shrinking_brings_few_probes_closer_to_the_truth():
    model, structure, batch = one_layer(60)
    exact_U = hessian(model, structure, batch).diagonal()
    plain_U = probes_of(model, structure, batch, 8).mean(dim=0)
    shrunk_U = estimated(model, structure, batch, num_probes=8)
    assert (shrunk_U - exact_U).norm() < 0.7 * (plain_U - exact_U).norm()


def test_the_score_with_signs_is_that_of_their_mean_diagonal():
    """Three batches: mean of (-g + H/2)^2 with g of each batch and H averaged before."""
    model, structure, batch = one_layer(3)
    batches = [batch] + [(batch[0] * factor, batch[1]) for factor in (0.5, 2.0)]
    score_U = TaylorSecondOrder().units(subject_of(model, structure, batches=batches, loss=squared))
    diagonals, gradients = [], []
    for one in batches:
        diagonal_U = hessian(model, structure, one).diagonal()
        changes_U = Oracle().changes(subject_of(model, structure, batches=[one], loss=squared))
        diagonals.append(diagonal_U)
        gradients.append(diagonal_U / 2 - changes_U)  # quadratic: change = -g + H / 2
    half_U = torch.stack(diagonals).mean(dim=0) / 2
    wanted_U = torch.stack([(half_U - g_U) ** 2 for g_U in gradients]).mean(dim=0)
    assert_close(score_U, wanted_U)


def test_no_probe_is_refused():
    with pytest.raises(UsageError, match="num_probes=0 estimates nothing"):
        TaylorSecondOrder(num_probes=0)


def test_a_loss_without_a_second_derivative_is_refused():
    model = nn.Sequential(
        nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.Hardsigmoid(), nn.Linear(3, 2)
    ).double()
    structure = trace(model, torch.zeros(1, 4, dtype=torch.float64))
    batch = (torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64))
    with pytest.raises(UsageError, match="The loss cannot be differentiated twice: derivative for"):
        TaylorSecondOrder().units(subject_of(model, structure, batches=[batch], loss=squared))
