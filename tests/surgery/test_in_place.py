"""A layer that is gone hands its input on; nothing that is left may overwrite it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateur import verify
from secateur.structure import Decision, trace
from secateur.surgery import cut_


class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(x + self.conv2(self.relu(self.conv1(x))))


def _without_layers(model, example):
    structure = trace(model, example)
    cut_(
        model,
        structure,
        structure.everything(),
        Decision(layers=tuple(range(structure.num_layers))),
    )
    return model


def test_gradients_flow_past_two_blocks_that_left_their_activations_behind():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), _Block(), _Block(), nn.Conv2d(2, 1, 1))
    example = torch.randn(1, 1, 4, 4)
    _without_layers(model, example)(example).sum().backward()
    assert model[0].weight.grad is not None


class _Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(1, 2, 1), _Block(), nn.Conv2d(4, 1, 1)

    def forward(self, x):
        before = self.stem(x)
        return self.head(torch.cat([before, self.block(before)], 1))


def test_the_input_of_a_gone_block_is_left_alone():
    verify(_Features(), torch.randn(2, 1, 4, 4))


class _Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        return x + self.conv2(self.conv1(x).tanh())


class _Overwriting(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(1, 2, 1), _Residual(), nn.Conv2d(4, 1, 1)

    def forward(self, x):
        before = self.stem(x)
        after = self.block(before)
        return self.head(torch.cat([F.relu(after[:, :], inplace=True), before], 1))


def test_a_block_whose_sum_is_overwritten_goes_on_adding():
    verify(_Overwriting(), torch.randn(2, 1, 4, 4))


class _TwoBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 6), nn.Linear(6, 4)
        self.c, self.d = nn.Linear(4, 6), nn.Linear(6, 4)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        x = x + self.b(self.act(self.a(x)))
        return x + self.d(self.act(self.c(x)))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_activation_of_a_quiet_branch_leaves_the_stream_alone(seed):
    model = nn.Sequential(nn.Linear(3, 4), _TwoBranches(), nn.Linear(4, 2))
    verification = verify(model, torch.randn(5, 3), seed=seed)
    assert verification.num_layers == 1


def test_a_refused_removal_leaves_activations_as_they_were():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), _Block(), nn.Conv2d(2, 1, 1))
    kept = copy.deepcopy(model)
    _without_layers(kept, torch.randn(1, 1, 4, 4))
    assert not kept[1].relu.inplace
    assert model[1].relu.inplace


class _Stage(nn.Module):
    """An activation whose result is the input of a block, which then computes beside it."""

    def __init__(self):
        super().__init__()
        self.down, self.act = nn.Conv2d(2, 3, 1), nn.ELU(inplace=True)
        self.block, self.last = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ELU(inplace=True)), nn.ELU()

    def forward(self, x):
        before = self.act(self.down(x))
        return self.last(self.block(before) + before)


def test_an_activation_that_no_longer_overwrites_computes_with_the_same_numbers():
    net = nn.Sequential(nn.Conv2d(1, 2, 1), _Stage(), nn.Conv2d(3, 1, 1))
    verify(net, torch.randn(2, 1, 4, 4), fraction=0.9)
