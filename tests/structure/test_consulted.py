"""Modules that others read from stay, since a stand-in has nothing to read."""

import pytest
import torch
from torch import nn

from secateur import verify
from secateur.structure import trace


class _Wide(nn.Module):
    """A branch whose two layers are named."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


class _Reading(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.stem, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.branches = nn.ModuleList(_Wide() for _ in range(3))
        self.layer = layer

    def forward(self, x):
        for branch in self.branches:
            assert not hasattr(branch, "hook")
        x = self.stem(x.to(self.branches[self.layer].fc1.weight.dtype))
        for branch in self.branches:
            x = x + branch(x)
        return self.head(x)


@pytest.mark.parametrize("layer", [0, 2])
def test_a_branch_from_which_a_type_is_read_stays_and_the_others_go(layer):
    net, x = _Reading(layer), torch.randn(5, 3)
    structure = trace(net, x)
    assert {y.name for y in structure.layers} == {f"branches.{i}" for i in {0, 1, 2} - {layer}}
    (kept,) = (entry for entry in structure.fixed if entry.what.startswith("branch"))
    assert "reads tensors or modules from it" in kept.reason.message
    assert verify(net, x, fraction=0.9).difference <= 1e-10
