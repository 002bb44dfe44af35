"""Sizes that a forward compares: what is equal stays equal, and numbers in modules follow."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur import verify
from secateur.structure import trace


class Checked(nn.Module):
    """Refuses an input of another width than it was built for."""

    def __init__(self, check):
        super().__init__()
        self.channels = 6
        self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 3)
        self.check = check

    def forward(self, x):
        x = torch.relu(self.first(x))
        self.check(self, x)
        return self.second(x)


def _by_assertion(net, x):
    assert x.shape[1] == net.channels


def _the_other_way_round(net, x):
    if net.channels != x.size(-1):
        raise ValueError(f"got {x.size(-1)} channels")


def _in_a_tuple(net, x):
    assert x.shape == (len(x), net.channels)


@pytest.mark.parametrize("check", [_by_assertion, _the_other_way_round, _in_a_tuple])
def test_a_number_that_a_width_is_held_against_follows_it(check):
    net, x = Checked(check), torch.randn(5, 4)
    assert [family.num_units for family in trace(net, x).families] == [6]
    assert verify(net, x).difference <= 1e-10


def _by_literal(net, x):
    if x.shape[1] != 6:
        raise AssertionError


def test_a_width_that_is_held_against_a_literal_stays_and_says_so_without_a_message():
    """The assertion has no message of its own."""
    structure = trace(Checked(_by_literal), torch.randn(5, 4))
    assert not structure.families
    reason = structure.explain("first.weight")
    assert "does not run at another size: AssertionError" in str(reason)
    assert "test_compared.py" in str(reason)


class Alike(nn.Module):
    """Adds up two branches that it takes to be equally wide."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(4, 6), nn.Linear(4, 6)
        self.ends = nn.ModuleList([nn.Linear(6, 2), nn.Linear(6, 2)])

    def forward(self, x):
        a, b = torch.relu(self.one(x)), torch.relu(self.other(x))
        if a.shape != b.shape:
            raise ValueError("expected branches of one width")
        return self.ends[0](a) + self.ends[1](b)


def test_axes_that_are_held_against_each_other_lose_the_same_units():
    net, x = Alike(), torch.randn(5, 4)
    (family,) = trace(net, x).families
    assert {member.tensor for member in family.members} >= {"one.weight", "other.weight"}
    assert verify(net, x).difference <= 1e-10


class Pooled(nn.Module):
    """Attention by PyTorch's function, whose projections have to be square."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        x = self.norm(x)
        return F.multi_head_attention_forward(
            x, x, x, x.shape[-1], 2, None,
            torch.cat([self.q.bias, self.k.bias, self.v.bias]), None, None, False, 0.0,
            self.out.weight, self.out.bias, training=self.training, need_weights=False,
            use_separate_proj_weight=True, q_proj_weight=self.q.weight,
            k_proj_weight=self.k.weight, v_proj_weight=self.v.weight,
        )[0]  # fmt: skip


@pytest.mark.parametrize("inexact", [False, True])
def test_heads_of_projections_that_have_to_be_square_stay(inexact):
    net = nn.Sequential(nn.Linear(3, 8), Pooled(), nn.Linear(8, 5), nn.Linear(5, 2))
    x = torch.randn(6, 2, 3)
    names = {m.tensor for f in trace(net, x, allow_inexact=inexact).families for m in f.members}
    assert names == {"2.weight", "2.bias", "3.weight"}
    assert verify(net, x, allow_inexact=inexact).difference <= 1e-10
