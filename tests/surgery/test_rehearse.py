"""What surgery would refuse during training is known before."""

import pytest
import torch
from torch import nn

from secateur import attach
from secateur.errors import MiswiredError
from secateur.structure import trace
from secateur.surgery import rehearse


class _Scaled(nn.Module):
    """Scales by a width: the number changes with the layer, and with it the function."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.second(self.first(x) * self.first.out_features**-0.5)


def test_a_model_whose_numbers_follow_a_width_is_refused_when_it_is_attached():
    model = _Scaled()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(MiswiredError, match="computes with other numbers than before"):
        attach(model, optimizer, torch.zeros(1, 3), price=0.3, total_steps=100)
    assert model.first.out_features == 6


def test_a_rehearsal_leaves_the_model_and_its_numbers_alone():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    rehearse(model, trace(model, torch.zeros(1, 1, 2, 2)))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model[0].out_channels == 4
