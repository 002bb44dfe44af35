"""Whole experts leave a mixture while it trains, with their optimizer state."""

import torch
from torch import nn
from torch.nn import functional as F

import secateur


class Mixture(nn.Module):
    """Eight experts, two for each row, all but three of which never help."""

    def __init__(self):
        super().__init__()
        self.count = 8
        self.gate = nn.Linear(6, 8)
        self.up = nn.Parameter(torch.randn(8, 12, 6) / 3)
        self.down = nn.Parameter(torch.randn(8, 6, 12) / 3)

    def forward(self, x):
        weights, chosen = self.gate(x).softmax(-1).topk(2, -1)
        result = torch.zeros_like(x)
        hits = F.one_hot(chosen, self.count).permute(2, 1, 0)
        for (number,) in hits.sum((1, 2)).greater(0).nonzero():
            place, token = torch.where(hits[number])
            hidden = F.linear(x[token], self.up[number]).relu()
            rows = F.linear(hidden, self.down[number]) * weights[token, place, None]
            result = result.index_add(0, token, rows)
        return result


def test_experts_leave_while_training_goes_on_and_take_their_optimizer_state_along():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), Mixture(), nn.Linear(6, 2))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    x = torch.randn(64, 6)
    labels = (x[:, 0] > 0).long()
    search = secateur.attach(
        net, optimizer, x[:1], target_params=0.3, total_steps=300, allow_inexact=True
    )
    for _ in range(300):
        optimizer.zero_grad()
        F.cross_entropy(net(x), labels).backward()
        optimizer.step()
    assert search.settled
    mixture = net[1]
    left = mixture.count
    assert 2 <= left < 8
    assert mixture.up.shape[0] == mixture.down.shape[0] == mixture.gate.out_features == left
    for parameter in (mixture.up, mixture.down, mixture.gate.weight):
        assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape
    assert F.cross_entropy(net(x), labels) < 0.4


def test_experts_stay_unless_inexact_removals_are_allowed():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 6), Mixture(), nn.Linear(6, 2))
    optimizer = torch.optim.Adam(net.parameters())
    search = secateur.attach(net, optimizer, torch.zeros(1, 6), price=1.0, total_steps=100)
    kinds = [family.kind for family in search.structure.families]
    assert kinds
    assert "expert" not in kinds
