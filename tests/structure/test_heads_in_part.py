"""Positions inside heads of which only some rotate, and inside heads that are normalised."""

import pytest
import torch
from torch import nn

from secateur import verify
from secateur.structure import trace
from tests.counting import counted_macs

X = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0))


class _Attention(nn.Module):
    """Two heads; what queries and keys go through first is left to subclasses."""

    def __init__(self, rotary_dim=4, head_dim=8):
        super().__init__()
        self.head_dim, self.rotary_dim = head_dim, rotary_dim
        self.scale = head_dim**-0.5
        self.q, self.k, self.v = (nn.Linear(16, 2 * head_dim) for _ in range(3))
        self.out = nn.Linear(2 * head_dim, 5)
        self.register_buffer("speed", torch.rand(rotary_dim // 2))

    def split(self, x):
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def values(self, x):
        return self.split(x)

    def heads(self, x):
        return self.split(self.q(x)), self.split(self.k(x)), self.values(self.v(x))

    def forward(self, x):
        q, k, v = self.heads(x)
        angle = torch.arange(q.shape[2])[:, None] * self.speed
        q, k = (self.prepared(t, *self.table(angle)) for t in (q, k))
        mixed = (q @ k.transpose(-1, -2) * self.scale).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).flatten(2))

    def table(self, angle):
        angle = torch.cat([angle, angle], dim=-1)
        return angle.cos(), angle.sin()

    def turned(self, x):
        a, b = x.chunk(2, dim=-1)
        return torch.cat([-b, a], dim=-1)

    def prepared(self, x, cos, sin):
        rotated, rest = x[..., : self.rotary_dim], x[..., self.rotary_dim :]
        rotated = rotated * cos + self.turned(rotated) * sin
        return torch.cat([rotated, rest], dim=-1)


class _ByTable(_Attention):
    """How much of a head rotates is read from the table."""

    def prepared(self, x, cos, sin):
        width = cos.shape[-1]
        rotated, rest = x[..., :width], x[..., width:]
        rotated = rotated * cos + self.turned(rotated) * sin
        return torch.cat([rotated, rest], dim=-1)


class _Interleaved(_Attention):
    """Neighbours rotate."""

    def table(self, angle):
        angle = angle.repeat_interleave(2, -1)
        return angle.cos(), angle.sin()

    def turned(self, x):
        return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)


class _Literal(_Attention):
    """How much of a head rotates stands in the code."""

    def prepared(self, x, cos, sin):
        rotated, rest = x[..., :4], x[..., 4:]
        rotated = rotated * cos + self.turned(rotated) * sin
        return torch.cat([rotated, rest], dim=-1)


class _Fused(_ByTable):
    """One layer makes all three, and its width is a multiple of the number that is kept."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.q = self.k = self.v = None

    def heads(self, x):
        qkv = self.qkv(x).view(2, 7, -1, 3 * self.head_dim).transpose(1, 2)
        return qkv.chunk(3, dim=-1)


class _Normed(_Attention):
    """Queries and keys of each head are normalised."""

    def __init__(self):
        super().__init__()
        self.norms = nn.ModuleList([nn.RMSNorm(8), nn.RMSNorm(8)])

    def heads(self, x):
        q, k, v = super().heads(x)
        return self.norms[0](q), self.norms[1](k), v


class _NormedByHand(_Attention):
    """The same, with a mean that the model's own code takes."""

    def heads(self, x):
        q, k, v = super().heads(x)
        return *(t * (t.square().mean(-1, keepdim=True) + 1e-6).rsqrt() for t in (q, k)), v


class _NormedFree(_Normed):
    """Values have a width of their own."""

    def values(self, x):
        return x.unflatten(-1, (2, -1)).transpose(1, 2)


def _places(model, tensor, **options):
    families = trace(model, X, head_dims=True, **options).families
    assert all(family.kind == "dimension" for family in families)
    return [m.index.tolist() for f in families for m in f.members if m.tensor == tensor]


PAIRS = [[0, 2, 8, 10], [1, 3, 9, 11]]
NEIGHBOURS = [[0, 1, 8, 9], [2, 3, 10, 11]]
SINGLE = [[i, i + 8] for i in range(4, 8)]


@pytest.mark.parametrize(
    ("build", "rotating"), [(_Attention, PAIRS), (_ByTable, PAIRS), (_Interleaved, NEIGHBOURS)]
)
def test_pairs_that_rotate_leave_together_and_the_rest_one_by_one(build, rotating):
    for tensor in ("q.weight", "k.weight", "v.weight", "out.weight"):
        assert _places(build(), tensor) == [rotating, SINGLE]
    assert _places(build(), "speed") == [[[0], [1]]]


def test_three_quarters_of_a_head_rotate_as_well_as_half_of_it():
    found = _places(_Attention(rotary_dim=6), "q.weight")
    assert [len(units) for units in found] == [3, 2]


IN_PART = [
    _Attention, _ByTable, _Interleaved, _Fused, lambda: _Literal(head_dim=10),
    lambda: _Attention(rotary_dim=6), lambda: _ByTable(rotary_dim=8),
]  # fmt: skip


@pytest.mark.parametrize("fraction", [0.3, 0.9])
@pytest.mark.parametrize("build", IN_PART)
def test_silencing_positions_of_heads_that_rotate_in_part_is_removing_them(build, fraction):
    found = verify(build(), X, head_dims=True, fraction=fraction)
    assert found.num_units > 0
    assert found.difference <= 1e-12


@pytest.mark.parametrize("build", IN_PART)
def test_costs_of_heads_that_rotate_in_part_are_what_is_counted(build):
    model = build()
    structure = trace(model, X, head_dims=True)
    assert structure.cost.macs.value() == counted_macs(model, X)


def test_where_the_code_says_how_much_rotates_only_the_rest_leaves():
    structure = trace(_Literal(head_dim=10), X, head_dims=True)
    assert _places(_Literal(head_dim=10), "q.weight") == [[[i, i + 10] for i in range(4, 10)]]
    messages = [reason.message for reason, _ in structure.explain("q.weight").axes[0].fixed]
    assert any("would go wrong at another size" in message for message in messages)


@pytest.mark.parametrize("build", [_Normed, _NormedByHand])
def test_positions_of_normalised_heads_stay_unless_inexact_ones_may_leave(build):
    structure = trace(build(), X, head_dims=True)
    assert structure.families == ()
    found = {reason.message for reason, _ in structure.explain("q.weight").axes[0].fixed}
    assert found == {"shares a statistic over all units of this axis"}
    assert _places(build(), "v.weight", allow_inexact=True) == [PAIRS, SINGLE]


@pytest.mark.parametrize("fraction", [0.3, 0.9])
@pytest.mark.parametrize("build", [_Normed, _NormedByHand])
def test_a_norm_of_heads_takes_its_statistic_over_what_is_left(build, fraction):
    found = verify(build(), X, head_dims=True, allow_inexact=True, fraction=fraction)
    assert found.num_units > 0
    assert found.difference <= 1e-12


def test_values_leave_heads_whose_queries_are_normalised():
    assert _places(_NormedFree(), "out.weight") == [[[i, i + 8] for i in range(8)]]
    assert _places(_NormedFree(), "q.weight") == []
    assert verify(_NormedFree(), X, head_dims=True).difference <= 1e-12
