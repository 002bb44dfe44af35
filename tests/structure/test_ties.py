"""Axes that a forward takes to be equally long lose units together where both may."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur import verify
from secateur.structure import Decision, trace
from secateur.surgery import cut_


class _Attention(nn.Module):
    """Attention that merges its heads into the width of the stream, as timm's older models do."""

    def __init__(self, width=12, num_heads=3, *, keep_head_width=False):
        super().__init__()
        self.num_heads = num_heads
        self.head_width = width // num_heads if keep_head_width else None
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        B, N, C = x.shape
        head_width = self.head_width or C // self.num_heads
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, head_width).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(*qkv.unbind(0), scale=0.5)
        return self.proj(x.transpose(1, 2).reshape(B, N, C))


class _Block(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(12), _Attention(**settings)

    def forward(self, x):
        return x + self.attention(self.norm(x))


def _net(blocks=1, **settings):
    stack = [_Block(**settings) for _ in range(blocks)]
    return nn.Sequential(nn.Linear(5, 12), *stack, nn.LayerNorm(12), nn.Linear(12, 2))


@pytest.mark.parametrize("keep_head_width", [True, False])
@pytest.mark.parametrize("blocks", [1, 2])
def test_heads_and_the_stream_they_are_merged_into_leave_together(blocks, keep_head_width):
    net, x = _net(blocks, keep_head_width=keep_head_width), torch.randn(2, 4, 5)
    (family,) = trace(net, x, allow_inexact=True).families
    assert family.num_units == 3
    by_place = {(m.tensor, m.axis): m.index.shape[1] for m in family.members}
    assert by_place["0.weight", 0] == 4
    assert by_place["1.attention.qkv.weight", 0] == 12
    assert by_place["1.attention.qkv.weight", 1] == 4
    assert by_place["1.attention.proj.weight", 1] == 4
    assert verify(net, x, allow_inexact=True).num_units > 0


def test_a_model_with_fewer_heads_and_a_narrower_stream_has_matching_numbers():
    net, x = _net(), torch.randn(2, 4, 5)
    structure = trace(net, x, allow_inexact=True)
    cut_(net, structure, structure.everything(), Decision(units={0: torch.tensor([1])}))
    assert net[1].attention.num_heads == 2
    assert net[0].out_features == 8
    assert net[1].attention.qkv.weight.shape == (24, 8)
    assert net(x).shape == (2, 4, 2)


def test_heads_stay_where_the_stream_stays():
    structure = trace(_net(), torch.randn(2, 4, 5))
    assert structure.families == ()
    reasons = [
        str(reason) for reason, _ in structure.explain("1.attention.proj.weight").axes[1].fixed
    ]
    assert any("would go wrong at another size" in reason for reason in reasons)


class _Reduced(nn.Module):
    """A convolution whose result is reshaped to the width of what went into it."""

    def __init__(self):
        super().__init__()
        self.first, self.reduce = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 2, stride=2)
        self.last = nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        B, C, *_ = x.shape
        return self.last(self.reduce(x).reshape(B, C, -1).transpose(1, 2))


def test_what_a_layer_makes_follows_the_width_of_what_it_was_given():
    net, x = _Reduced(), torch.randn(2, 3, 4, 4)
    (family,) = trace(net, x).families
    assert {m.tensor for m in family.members} >= {"first.weight", "reduce.weight", "last.weight"}
    assert family.num_units == 8
    assert verify(net, x).num_units == 4


class _Shuffled(nn.Module):
    """Deals its channels out anew and gives them their own number: nothing there is a tie."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.first(x)
        B, C, H, W = x.shape
        return self.last(x.view(B, 2, C // 2, H, W).transpose(1, 2).reshape(B, C, H, W))


def test_channels_that_only_change_places_are_not_tied_to_each_other():
    net, x = _Shuffled(), torch.randn(2, 3, 4, 4)
    (family,) = trace(net, x).families
    assert family.num_units == 4
    assert verify(net, x).num_units == 2


class _Heads(nn.Module):
    """Attention in heads of a kept width; with one head, only the values could lose any of it."""

    def __init__(self, num_heads):
        super().__init__()
        self.head_width = 4
        width = 4 * num_heads
        self.query, self.key, self.value = (nn.Linear(6, width) for _ in range(3))
        self.out = nn.Linear(width, 6)

    def forward(self, x):
        shape = (*x.shape[:-1], -1, self.head_width)
        q, k, v = (y(x).view(shape).transpose(1, 2) for y in (self.query, self.key, self.value))
        weights = (q @ k.transpose(-1, -2)).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


def test_a_line_that_fails_in_one_module_does_not_fix_the_units_of_others():
    net = nn.Sequential(nn.Linear(3, 6), _Heads(1), _Heads(3), nn.Linear(6, 2))
    structure = trace(net, torch.randn(2, 5, 3))
    free = {(m.tensor, m.axis): f.num_units for f in structure.families for m in f.members}
    assert ("1.value.weight", 0) not in free
    assert free["2.value.weight", 0] == 3
    assert verify(net, torch.randn(2, 5, 3)).num_units > 0


class _Windows(nn.Module):
    """Heads that are treated differently in two windows, and merged again."""

    def __init__(self):
        super().__init__()
        self.num_heads, self.windows = 5, [2, 3]
        self.value, self.proj = nn.Linear(20, 20), nn.Linear(20, 20)
        self.near, self.far = nn.Parameter(torch.randn(2, 1, 1)), nn.Parameter(torch.randn(3, 1, 1))
        self.token = nn.Parameter(torch.randn(1, 1, 20))

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        B, N, C = x.shape
        v = self.value(x).reshape(B, N, self.num_heads, C // self.num_heads).transpose(1, 2)
        near, far = v.split(self.windows, dim=1)
        v = torch.cat([near * self.near, far * self.far], dim=1)
        v = (v @ v.transpose(-1, -2)).softmax(-1) @ v
        return x + self.proj(v.transpose(1, 2).reshape(B, N, C))


@pytest.mark.parametrize("batch", [1, 2])
def test_one_head_may_be_left_of_each_of_several_kinds(batch):
    net = nn.Sequential(nn.Linear(3, 20), _Windows(), nn.Linear(20, 2))
    x = torch.randn(batch, 6, 3)
    structure = trace(net, x)
    heads = {i: f.num_units for i, f in enumerate(structure.families) if f.num_units < 20}
    assert sorted(heads.values()) == [2, 3]
    gone = {i: torch.arange(num_heads - 1) for i, num_heads in heads.items()}
    cut_(net, structure, structure.everything(), Decision(units=gone))
    assert net[1].windows == [1, 1]
    assert net(x).shape == (batch, 7, 2)


def test_an_axis_whose_size_divides_another_one_that_stays_is_fixed():
    """The heads stay, since their width is worked out from the stream, and so the stream does."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.attention, self.last = nn.Linear(4, 12), _Linear(), nn.Linear(12, 2)

        def forward(self, x):
            return self.last(self.attention(self.first(x)).relu())

    class _Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.num_heads = 3
            self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)

        def forward(self, x):
            B, N, C = x.shape
            parts = self.qkv(x).chunk(3, dim=-1)
            q, k, v = (t.reshape(B, N, self.num_heads, C // self.num_heads) for t in parts)
            context = torch.einsum("bnhd,bnhe->bhde", k.softmax(1), v)
            return self.proj(torch.einsum("bnhd,bhde->bnhe", q, context).reshape(B, N, -1))

    structure = trace(Net(), torch.randn(2, 5, 4))
    assert [family.name for family in structure.families] == ["attention.proj"]
    assert verify(Net(), torch.randn(2, 5, 4)).num_units == 6
