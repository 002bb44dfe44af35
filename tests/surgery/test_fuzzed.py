"""Networks on which the fuzzer found something wrong, each cut down to what it takes."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur import trace, verify
from secateur.structure import Decision
from secateur.surgery import cut_
from tests.counting import counted_macs

TOKENS = torch.randn(2, 5, 6)


class OnTokens(nn.Module):
    """A layer in front of a function and a layer behind it."""

    def __init__(self, wide, narrow, between):
        super().__init__()
        self.first, self.last = nn.Linear(6, wide), nn.Linear(narrow, 3)
        self.between = between

    def forward(self, x):
        return self.last(self.between(self.first(x)))


def second_half_turned(x):
    a, b = x.chunk(2, dim=-1)
    c, d = b.chunk(2, dim=-1)
    return torch.cat([a.relu(), d, c.tanh()], dim=-1)


@pytest.mark.parametrize(("wide", "num_units"), [(4, 1), (8, 2), (12, 3)])
def test_chunks_of_chunks_keep_equal_parts(wide, num_units):
    """A unit is a position of every quarter; whole quarters went where positions were few."""
    network = OnTokens(wide, wide, second_half_turned)
    assert [f.num_units for f in trace(network, TOKENS).families] == [num_units]
    if num_units > 1:
        assert verify(network, TOKENS).num_units == round(num_units / 2)


def test_a_weight_that_is_expanded_to_a_batch_still_consumes_its_units():
    """Linear without a bias, on a transposed input, is a product with a repeated weight."""
    network = nn.Sequential(nn.Conv1d(6, 4, 1), Turned(), nn.Linear(4, 3, bias=False))
    assert [f.num_units for f in trace(network, TOKENS.transpose(1, 2)).families] == [4]
    assert verify(network, TOKENS.transpose(1, 2)).num_units == 2


class Turned(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


class NormedQueries(nn.Module):
    """Two heads, whose queries and keys are normalised over their depth."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(6, 8) for _ in range(3))
        self.norms = nn.ModuleList([nn.LayerNorm(4), nn.LayerNorm(4)])
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        q, k, v = (
            layer(x).unflatten(-1, (-1, 4)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        q, k = self.norms[0](q), self.norms[1](k)
        return self.out(((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2))


def test_the_last_head_may_meet_what_is_fixed_along_its_depth():
    assert verify(NormedQueries(), TOKENS).num_units == 1


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x / x.shape[-1],
        lambda x: x * (x.size(-1) // 2) ** -0.5,
        lambda x: x * x.shape[-1] ** -0.5,
        lambda x: x * math.sqrt(x.shape[2]),
        lambda x: torch.where(x > 2 / x.size(2), x, -x),
    ],
)
def test_an_axis_whose_size_is_a_number_in_arithmetic_keeps_its_size(between):
    """It was found out at the first removal only."""
    structure = trace(OnTokens(4, 4, between), TOKENS)
    assert structure.families == ()
    messages = [
        fixed.reason.message for fixed in structure.fixed if fixed.what == "first.weight[0]"
    ]
    assert messages == ["has a size that is used as a number, which changes values"]


def test_a_size_that_is_only_a_size_fixes_nothing():
    def between(x):
        count, length, width = x.shape
        return x.reshape(count * length, width).view(count, length, -1)

    assert verify(OnTokens(4, 4, between), TOKENS).num_units == 2


def test_heads_may_go_where_their_depth_gives_the_scale():
    def between(x):
        heads = x.unflatten(-1, (-1, 3))
        return (heads * heads.size(-1) ** -0.5).flatten(2)

    assert verify(OnTokens(12, 12, between), TOKENS).num_units == 2


class ScaledAttention(nn.Module):
    """The only module that the branch owns is given values as wide as the stream by chance."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 6), nn.Linear(6, 3)
        self.attention = nn.MultiheadAttention(6, 1, batch_first=True)
        self.scale = nn.Parameter(torch.randn(6))

    def forward(self, x):
        x = self.first(x)
        return self.last(x + self.scale * self.attention(x, x.tanh(), x)[0])


def test_a_stand_in_for_the_end_of_a_branch_is_given_the_units_that_it_returns():
    """Zeros shaped like the values were added to a stream that had lost other units."""
    structure = trace(ScaledAttention(), TOKENS)
    stubs = [stub.module for layer in structure.layers for stub in layer.stubs]
    assert "attention.out_proj" not in stubs
    assert verify(ScaledAttention(), TOKENS).difference <= 1e-10


class LearnedContext(nn.Module):
    """Two heads look at learned tokens, which run along an axis of their own."""

    def __init__(self):
        super().__init__()
        self.context = nn.Parameter(torch.randn(1, 5, 6))
        self.query, self.key, self.value = (nn.Linear(6, 8) for _ in range(3))
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        context = self.context.expand(x.shape[0], -1, -1)
        q, k, v = (
            layer(y).unflatten(-1, (-1, 4)).transpose(1, 2)
            for layer, y in ((self.query, x), (self.key, context), (self.value, context))
        )
        return self.out(((q @ k.transpose(-2, -1)).sigmoid() @ v).transpose(1, 2).flatten(2))


def test_the_last_head_is_compared_on_the_axes_that_are_left():
    """Half of the 6 channels of the context go, and one of 2 heads."""
    assert verify(LearnedContext(), TOKENS).num_units == 3 + 1


class SplitAttention(nn.Module):
    """Three versions of three channels; a convolution meets the last one of them."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 9, 1), nn.Conv2d(3, 2, 1)
        self.gate = nn.Linear(3, 9)

    def forward(self, x):
        x = self.first(x).unflatten(1, (3, -1))
        gate = self.gate(x.sum(1).mean((2, 3))).view(x.shape[0], 3, -1).softmax(1)
        return self.last((x * gate[..., None, None]).sum(1))


def test_a_convolution_of_the_last_channel_is_compared_operand_by_operand():
    assert verify(SplitAttention(), torch.randn(2, 2, 4, 4), fraction=0.9).num_units == 2


class BesideAConstant(nn.Module):
    """The stream is joined from two units and a number without a unit; a branch adds to it."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 2), nn.Linear(3, 2)
        self.branch = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))

    def forward(self, x):
        x = torch.cat([self.first(x), x.amax(-1, keepdim=True)], dim=-1)
        return self.last((x + self.branch(x)).relu())


def test_what_meets_padding_may_be_padding_once_its_branch_and_all_units_but_one_are_gone():
    structure = trace(BesideAConstant(), TOKENS)
    decision = Decision(units={0: torch.tensor([1])}, layers=(0,))
    network = BesideAConstant()
    cut_(network, structure, structure.everything(), decision)
    assert network.first.out_features == 1


def test_a_quotient_that_two_sizes_share_does_not_hide_which_axis_holds_the_units():
    class Shuffled(nn.Module):
        """Three groups of two: with a group more, a third of the channels would be two as well."""

        def __init__(self):
            super().__init__()
            self.groups = 3
            self.enter, self.leave = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 4, 1)

        def forward(self, x):
            x = self.enter(x)
            x = x.reshape(x.shape[0], self.groups, x.shape[1] // 3, *x.shape[2:]).transpose(1, 2)
            return self.leave(x.reshape(x.shape[0], -1, *x.shape[-2:])).mean((2, 3))

    net, x = Shuffled(), torch.randn(2, 3, 4, 4)
    structure = trace(net, x)
    for family in range(len(structure.families)):
        decision = Decision(units={family: torch.tensor([0])})
        cut_(copy.deepcopy(net), structure, structure.everything(), decision)


@pytest.mark.parametrize("gone", [(0,), (2,), (0, 1)])
def test_parts_of_different_lengths_stay_apart_where_they_come_to_be_equally_long(gone):
    class UnevenParts(nn.Module):
        """Three positions and two, each number kept by the module."""

        def __init__(self):
            super().__init__()
            self.wide, self.narrow = 3, 2
            self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x):
            a, b = self.first(x).split([self.wide, self.narrow], dim=-1)
            return self.last(torch.cat([b.tanh(), a.relu()], dim=-1))

    net = UnevenParts()
    structure = trace(net, TOKENS)
    assert [family.num_units for family in structure.families] == [3, 2]
    live = structure.everything()
    live, _ = cut_(net, structure, live, Decision(units={0: torch.tensor(gone)}))
    cut_(net, structure, live, Decision(units={1: torch.tensor([1])}))
    assert (net.wide, net.narrow) == (3 - len(gone), 1)


class BesideAToken(nn.Module):
    """A learned token joins the sequence and is added to what follows it."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x):
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        return x[:, 1:] + x[:, :1]


class SharedHeads(nn.Module):
    """A product sums over two heads, each of which is there twice."""

    def __init__(self):
        super().__init__()
        self.first, self.behind, self.last = nn.Linear(6, 8), BesideAToken(), nn.Linear(4, 3)
        self.weight = nn.Parameter(torch.randn(4, 4, 4))

    def forward(self, x):
        x = self.first(x).unflatten(-1, (-1, 4)).transpose(1, 2)
        x = x[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2)
        x = torch.einsum("bhtd,hdo->bto", x, self.weight)
        return self.last(self.behind(x))


def test_the_axis_of_the_last_head_may_be_flattened_into_one_without_units():
    structure = trace(SharedHeads(), TOKENS)
    assert [family.num_units for family in structure.families] == [2, 4]
    network = SharedHeads()
    cut_(network, structure, structure.everything(), Decision(units={0: torch.tensor([0])}))
    assert network.first.out_features == 4


class LinearAttention(nn.Module):
    """Attention without a softmax, over parameters ``[inputs, heads, width]``."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 4, bias=False), nn.Linear(4, 3)
        self.q, self.k, self.v = (nn.Parameter(torch.randn(4, 3, 3) / 2) for _ in range(3))
        self.out = nn.Parameter(torch.randn(3, 3, 4) / 2)

    def forward(self, x):
        x = self.first(x)
        q, k, v = (torch.einsum("btc,chd->bhtd", x, w) for w in (self.q, self.k, self.v))
        q, k = F.elu(q), F.elu(k)
        x = q @ (k.transpose(-2, -1) @ v) / (q.sum(-1, keepdim=True) ** 2 + 1.0)
        return self.last(torch.einsum("bthd,hdo->bto", x.transpose(1, 2), self.out))


def test_the_axis_of_the_last_head_may_be_flattened_into_one_whose_positions_stay():
    assert verify(LinearAttention(), TOKENS, fraction=0.9).num_units == 10


class MixedHeads(nn.Module):
    """Mixes the maps of attention heads, of which there is only one."""

    def __init__(self):
        super().__init__()
        self.values, self.mix = nn.Linear(6, 4), nn.Parameter(torch.randn(1, 1))
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        maps = (x @ x.transpose(1, 2)).unsqueeze(1)
        maps = torch.einsum("bhij,hg->bgij", maps, self.mix)
        return self.last(torch.einsum("bhij,bjd->bid", maps, self.values(x)))


def test_a_sum_over_a_single_position_is_no_product_that_costs():
    structure = trace(MixedHeads(), TOKENS)
    assert structure.cost.macs.value() == counted_macs(MixedHeads(), TOKENS)


def test_a_slice_of_what_has_no_units_carries_none():
    network = nn.Sequential(nn.Linear(6, 4), BesideAToken(), nn.Linear(4, 3))
    evidence = trace(network, TOKENS).evidence
    labels = [label for _, found in evidence.places[0]["1"] for label in found]
    assert labels
    assert all(label.ids.any() for label in labels)
