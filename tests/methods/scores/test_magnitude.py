import torch
from torch import nn
from torch.testing import assert_close

from secateur.methods.scores import Magnitude, weight_score_named
from secateur.structure import trace
from tests.methods.scores.subjects import subject_of


def net():
    """Two hidden units: in (1, 2) and (3, -4), out 2 and -12, biases that must not count."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, -4.0]]))
        model[0].bias.fill_(100.0)
        model[2].weight.copy_(torch.tensor([[2.0, -12.0]]))
    return model, trace(model, torch.zeros(1, 2))


def test_hand_computed():
    model, structure = net()
    # L2 over the group: sqrt(1 + 4 + 4) = 3, sqrt(9 + 16 + 144) = 13; mean 8
    score_U = Magnitude().units(subject_of(model, structure))
    assert_close(score_U, torch.tensor([3 / 8, 13 / 8], dtype=torch.float64))
    # L1: 1 + 2 + 2 = 5, 3 + 4 + 12 = 19; mean 12
    score_U = Magnitude(power=1).units(subject_of(model, structure))
    assert_close(score_U, torch.tensor([5 / 12, 19 / 12], dtype=torch.float64))


def test_scaling_a_whole_family_changes_no_score():
    model, structure = net()
    before_U = Magnitude().units(subject_of(model, structure))
    with torch.no_grad():
        model[0].weight *= 10
        model[2].weight *= 10
    assert_close(Magnitude().units(subject_of(model, structure)), before_U)


def test_a_family_of_zeros_scores_zero():
    model, structure = net()
    with torch.no_grad():
        model[0].weight.zero_()
        model[2].weight.zero_()
    assert Magnitude().units(subject_of(model, structure)).tolist() == [0.0, 0.0]


def test_weights_score_their_absolute_value():
    model, structure = net()
    mask = torch.tensor([[True, False], [True, True]])
    scores = weight_score_named("magnitude").weights(
        subject_of(model, structure), {"0.weight": mask}
    )
    assert_close(scores["0.weight"].double(), torch.tensor([[1.0, 0.0], [3.0, 4.0]]).double())
