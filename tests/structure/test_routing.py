"""Mixtures of experts: hidden units leave all experts at once, experts and routing stay."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur import trace, verify


class _Experts(nn.Module):
    """Three experts, two for each token."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(8, 3)
        self.up = nn.Parameter(torch.randn(3, 24, 8) / 4)
        self.down = nn.Parameter(torch.randn(3, 8, 24) / 4)

    def forward(self, x):
        weights, chosen = self.gate(x).softmax(-1).topk(2, -1)
        return self.mixed(x, weights, chosen)


class _Grouped(_Experts):
    """Sorts tokens by expert and multiplies groups of rows."""

    def mixed(self, x, weights, chosen):
        order = chosen.flatten().argsort(stable=True)
        ends = F.one_hot(chosen.flatten(), 3).sum(0).cumsum(0).int()
        hidden = torch._grouped_mm(x[order // 2], self.up.transpose(1, 2), offs=ends).relu()
        rows = torch._grouped_mm(hidden, self.down.transpose(1, 2), offs=ends)
        rows = rows * weights.flatten()[order, None]
        return rows[order.argsort()].unflatten(0, (-1, 2)).sum(1)


class _Looping(_Experts):
    """Goes through the experts that were hit, and adds rows where they belong."""

    def mixed(self, x, weights, chosen):
        result = torch.zeros_like(x)
        hits = F.one_hot(chosen, 3).permute(2, 1, 0)
        for (number,) in hits.sum((1, 2)).greater(0).nonzero():
            place, token = torch.where(hits[number])
            hidden = F.linear(x[token], self.up[number]).relu()
            rows = F.linear(hidden, self.down[number]) * weights[token, place, None]
            result.index_add_(0, token, rows)
        return result


def _net(experts):
    return nn.Sequential(nn.Linear(4, 8), experts, nn.Linear(8, 4))


def test_hidden_units_of_experts_leave_together_and_exactly():
    net, x = _net(_Looping()), torch.randn(6, 4)
    structure = trace(net, x)
    places = [{(m.tensor, m.axis) for m in family.members} for family in structure.families]
    assert {("1.up", 1), ("1.down", 2)} in places
    result = verify(net, x)
    assert result.num_units >= 12
    assert result.difference <= 1e-10


def test_widths_of_a_grouped_product_stay_since_its_kernel_refuses_most():
    structure = trace(_net(_Grouped()), torch.randn(6, 4))
    reasons = {f.what: f.reason.message for f in structure.fixed}
    assert "grouped product" in reasons["1.up[1]"]
    net = _Grouped()
    net.up, net.down = nn.Parameter(net.up[:, :23]), nn.Parameter(net.down[..., :23])
    with pytest.raises(RuntimeError, match="16 bytes"):
        net(torch.randn(6, 8))


@pytest.mark.parametrize("experts", [_Grouped, _Looping])
def test_experts_themselves_stay_and_say_why(experts):
    structure = trace(_net(experts()), torch.randn(6, 4))
    reasons = {f.what: f.reason.message for f in structure.fixed}
    assert reasons["1.up[0]"] in {
        "is chosen by the data, one group for each row",
        "is picked by number",
        "is picked at a fixed position",
    }


def test_the_cost_of_a_grouped_product_is_that_of_one_expert_a_row():
    structure = trace(_net(_Grouped()), torch.randn(6, 4))
    around = 6 * (4 * 8 + 8 * 3 + 8 * 4)
    assert structure.cost.macs.value() == around + 6 * 2 * (8 * 24 + 24 * 8)
