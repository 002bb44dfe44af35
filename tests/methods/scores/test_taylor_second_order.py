import pytest
import torch
from torch import nn
from torch.testing import assert_close

from secateur.errors import UsageError
from secateur.gates import Gates
from secateur.methods.scores import Oracle, TaylorSecondOrder
from secateur.methods.scores._measuring import measuring
from secateur.methods.scores._taylor_second_order import _diagonal, _gradients
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


def test_unit_vectors_give_the_diagonal_of_the_hessian():
    model = nn.Sequential(
        nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 2)
    ).double()
    structure = trace(model, torch.zeros(1, 4, dtype=torch.float64))
    batch = (torch.randn(16, 4, dtype=torch.float64), torch.randn(16, 2, dtype=torch.float64))
    gates = Gates(model, structure, structure.everything())
    with measuring(model):
        gradients = _gradients(squared(model, batch), gates)
        diagonal_U = _diagonal(gates, gradients, torch.eye(8, dtype=torch.float64))
    assert_close(diagonal_U, hessian(model, structure, batch).diagonal())


def test_random_signs_estimate_the_diagonal_without_bias():
    """By Hoeffding's lemma and variance of the estimate: 2 x the squared off-diagonal sum / N."""
    model, structure, batch = one_layer(8)
    exact_UU = hessian(model, structure, batch)
    num_probes = 4000
    signs_NU = torch.randint(2, (num_probes, 8)).double() * 2 - 1
    gates = Gates(model, structure, structure.everything())
    with measuring(model):
        gradients = _gradients(squared(model, batch), gates)
        estimate_U = _diagonal(gates, gradients, signs_NU / num_probes**0.5)
    off_UU = exact_UU - torch.diag(exact_UU.diagonal())
    error_U = (off_UU.square().sum(dim=1) / num_probes).sqrt()
    assert ((estimate_U - exact_UU.diagonal()).abs() < 5 * error_U).all()


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
