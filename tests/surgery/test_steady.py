"""Noise in a forward: the same for what is left, however much left."""

import pytest
import torch
from torch import nn

from secateur import verify
from secateur.structure import trace


class Sampling(nn.Module):
    """Draws noise as wide as its hidden layer, and noise laid out as its input is."""

    def __init__(self, draw):
        super().__init__()
        self.mean, self.scale, self.out = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)
        self.draw = draw

    def forward(self, x):
        mean = self.mean(x)
        return self.out(mean + self.scale(x) * self.draw(mean))


@pytest.mark.parametrize(
    "draw",
    [
        torch.randn_like,
        lambda x: torch.randn(x.shape),
        lambda x: torch.normal(torch.zeros_like(x), torch.ones_like(x)),
        lambda x: torch.normal(x, 2.0) - x,
        lambda x: torch.empty_like(x).normal_(),
        lambda x: torch.empty_like(x).normal_(mean=1.0, std=0.5),
        lambda x: torch.empty_like(x).exponential_(),
    ],
)
def test_units_that_noise_is_drawn_for_leave_exactly(draw):
    net, x = Sampling(draw), torch.randn(5, 4)
    (family,) = trace(net, x).families
    assert family.num_units == 6
    assert verify(net, x).difference <= 1e-10


class Turned(nn.Module):
    """Hands on channels that lie last in memory."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        turned = self.conv(x).permute(0, 2, 3, 1).contiguous()
        return x + turned.permute(0, 3, 1, 2)


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(nn.Conv2d(1, 4, 1), Turned(), Turned())
        self.out = nn.Conv2d(4, 1, 1)

    def forward(self, x):
        x = self.blocks(x)
        return self.out(x * torch.randn_like(x))


def test_layers_that_lay_out_memory_in_another_way_leave_exactly_before_noise():
    net, x = Noisy(), torch.randn(2, 1, 3, 5)
    assert trace(net, x).num_layers == 2
    assert verify(net, x, fraction=0.9).difference <= 1e-10


def test_noise_of_a_literal_size_fixes_what_it_meets():
    net = Sampling(lambda x: torch.normal(0.5, 2.0, (5, 6)))
    assert not trace(net, torch.randn(5, 4)).families
