import pytest
import torch
from torch import nn
from torch.testing import assert_close

from secateur.errors import UsageError
from secateur.methods.scores import BNScale
from secateur.structure import trace
from tests.methods.scores.subjects import subject_of
from tests.structures import mlp, residual


def test_units_score_the_mean_absolute_scale_of_the_batch_norms_they_pass():
    model, structure, _ = residual()
    with torch.no_grad():
        model.bn0.weight.copy_(torch.tensor([1.0, -2.0, 3.0, 4.0]))
        model.block1.bn2.weight.copy_(torch.tensor([1.0, 1.0, -1.0, 1.0]))
        model.block2.bn2.weight.copy_(torch.tensor([4.0, 3.0, 2.0, 1.0]))
        model.block1.bn1.weight.copy_(torch.tensor([0.5, -0.25, 0.0]))
    score_U = BNScale().units(subject_of(model, structure))
    wanted = [6 / 3, 6 / 3, 6 / 3, 6 / 3, 0.5, 0.25, 0.0]  # stream: (1 + 1 + 4) / 3 and so on
    assert_close(score_U[:7], torch.tensor(wanted, dtype=torch.float64))


def test_units_without_a_batch_norm_are_never_to_go():
    model = nn.Sequential(
        nn.Linear(3, 2), nn.BatchNorm1d(2), nn.ReLU(), nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 1)
    )
    score_U = BNScale().units(subject_of(model, trace(model, torch.zeros(2, 3))))
    assert score_U.tolist() == [1.0, 1.0] + [float("inf")] * 4


def test_a_model_without_batch_norm_is_refused():
    model, structure, _ = mlp()
    with pytest.raises(UsageError, match="No removable unit of this Sequential passes a batch"):
        BNScale().units(subject_of(model, structure))
