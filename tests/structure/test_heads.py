"""Positions inside heads as units: where they leave all heads alike, and where they stay."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import secateur
from secateur import verify
from secateur.structure import Decision, trace
from secateur.surgery import cut_
from tests.counting import counted_macs

X = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(0))


class _Attention(nn.Module):
    """Attention of three heads of four, with what a head's width reaches left to subclasses."""

    def __init__(self, num_heads=3, num_groups=None, bias=True):
        super().__init__()
        self.num_heads, self.head_dim = num_heads, 12 // num_heads
        self.scale = self.head_dim**-0.5
        width = (num_groups or num_heads) * self.head_dim
        self.q, self.k, self.v = (nn.Linear(12, n, bias=bias) for n in (12, width, width))
        self.out = nn.Linear(12, 5)

    def split(self, x):
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def mixed(self, q, k, v):
        return (q @ k.transpose(-1, -2) * self.scale).softmax(-1) @ v

    def forward(self, x):
        q, k, v = (self.split(project(x)) for project in (self.q, self.k, self.v))
        return self.out(self.mixed(q, k, v).transpose(1, 2).flatten(2))


class _FreeWidth(_Attention):
    """Nothing but the weights says how wide a head is."""

    def split(self, x):
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class _Fused(_Attention):
    """Queries, keys and values from one layer, as in timm."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(12, 36)
        self.q = self.k = self.v = None

    def forward(self, x):
        B, N, _ = x.shape
        qkv = self.qkv(x).reshape(B, N, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        mixed = self.mixed(*qkv.unbind(0)).transpose(1, 2)
        return self.out(mixed.reshape(B, N, self.num_heads * self.head_dim))


class _Rotary(_Attention):
    """Pairs (i, i + D / 2) rotate; with ``interleaved`` pairs (2i, 2i + 1) do."""

    def __init__(self, interleaved=False):
        super().__init__(num_heads=2)
        self.interleaved = interleaved
        self.register_buffer("speed", torch.rand(3))

    def mixed(self, q, k, v):
        angle = torch.arange(q.shape[2])[:, None] * self.speed
        cos, sin = angle.cos(), angle.sin()
        q, k = (self.rotated(x, cos, sin) for x in (q, k))
        return super().mixed(q, k, v)

    def rotated(self, x, cos, sin):
        if self.interleaved:
            a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
            return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(-2)
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class _Grouped(_Attention):
    """Two heads of queries share a head of keys and values."""

    def __init__(self):
        super().__init__(num_heads=6, num_groups=3)

    def mixed(self, q, k, v):
        k, v = (x.repeat_interleave(2, dim=1) for x in (k, v))
        return super().mixed(q, k, v)


def _dimensions(model):
    families = trace(model, X, head_dims=True).families
    assert all(family.kind == "dimension" for family in families)
    return {family.name: _places(family) for family in families}


def _places(family):
    return {m.tensor: m.index.tolist() for m in family.members if m.tensor.endswith("weight")}


def test_one_number_for_all_widths_unites_queries_keys_and_values():
    (places,) = _dimensions(_Attention()).values()
    every_head = [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
    assert places == dict.fromkeys(("q.weight", "k.weight", "v.weight", "out.weight"), every_head)


def test_values_may_be_narrower_than_keys_where_no_number_says_otherwise():
    found = _dimensions(_FreeWidth())
    assert [set(places) for places in found.values()] == [
        {"q.weight", "k.weight"}, {"v.weight", "out.weight"},
    ]  # fmt: skip


@pytest.mark.parametrize("interleaved", [False, True])
def test_positions_that_rotate_together_leave_together(interleaved):
    model = _Rotary(interleaved)
    pairs = {False: [[0, 3], [1, 4], [2, 5]], True: [[0, 1], [2, 3], [4, 5]]}[interleaved]
    both_heads = [[a, b, a + 6, b + 6] for a, b in pairs]
    (places,) = _dimensions(model).values()
    assert places["q.weight"] == places["out.weight"] == both_heads
    (family,) = trace(model, X, head_dims=True).families
    assert [m.index.tolist() for m in family.members if m.tensor == "speed"] == [[[0], [1], [2]]]


def test_shared_keys_lose_the_same_positions_as_all_of_their_queries():
    (places,) = _dimensions(_Grouped()).values()
    assert places["q.weight"] == [[h * 2 + d for h in range(6)] for d in range(2)]
    assert places["k.weight"] == [[h * 2 + d for h in range(3)] for d in range(2)]


MODELS = [_Attention, _FreeWidth, _Fused, _Rotary, lambda: _Rotary(True), _Grouped,
          lambda: _Attention(num_heads=1), lambda: _Attention(bias=False)]  # fmt: skip


@pytest.mark.parametrize("fraction", [0.3, 0.9])
@pytest.mark.parametrize("build", MODELS)
def test_silencing_positions_is_removing_them(build, fraction):
    found = verify(build(), X, head_dims=True, fraction=fraction)
    assert found.num_units > 0
    assert found.difference <= 1e-12


@pytest.mark.parametrize("build", MODELS)
def test_costs_without_some_positions_are_what_is_counted(build):
    model = build()
    structure = trace(model, X, head_dims=True)
    units = {number: torch.tensor([0]) for number in range(len(structure.families))}
    live, _ = cut_(model, structure, structure.everything(), Decision(units=units))
    params = sum(p.numel() for p in model.parameters())
    assert structure.cost.params.value(live.counts, live.layers) == params
    assert structure.cost.macs.value(live.counts, live.layers) == counted_macs(model, X)


def test_the_numbers_a_module_keeps_of_its_heads_follow():
    model = _Attention()
    structure = trace(model, X, head_dims=True)
    cut_(model, structure, structure.everything(), Decision(units={0: torch.tensor([1, 2])}))
    assert (model.head_dim, model.num_heads, model.scale) == (2, 3, 4**-0.5)
    assert model.q.weight.shape == (6, 12)
    assert model(X).shape == (2, 7, 5)


def test_a_narrowed_model_is_saved_and_loaded(tmp_path):
    model = _Rotary()
    structure = trace(model, X, head_dims=True)
    cut_(model, structure, structure.everything(), Decision(units={0: torch.tensor([1])}))
    secateur.save(model, tmp_path / "saved")
    loaded = secateur.load(_Rotary, tmp_path / "saved")
    assert loaded.speed.shape == (2,)
    assert torch.equal(loaded(X), model(X))


def test_it_is_the_queries_that_silence_a_position():
    model = _FreeWidth().double()
    structure = trace(model, X.double(), head_dims=True)
    smaller, masked = copy.deepcopy(model), copy.deepcopy(model)
    cut_(smaller, structure, structure.everything(), Decision(units={0: torch.tensor([2])}))
    with torch.no_grad():
        for tensor in (masked.q.weight, masked.q.bias):
            tensor[2::4] = 0.0
    torch.testing.assert_close(smaller(X.double()), masked(X.double()), rtol=0, atol=1e-14)
    assert not torch.allclose(masked(X.double()), model(X.double()), atol=1e-4)


def test_the_rows_of_a_fused_projection_make_positions_and_silence_them():
    (family,) = trace(_Fused(), X, head_dims=True).families
    assert [m.consumes for m in family.members if m.tensor == "qkv.weight"] == [True, False]


def test_pruning_narrows_the_heads_of_a_network():
    model = _Attention()
    pruned = secateur.prune(model, X, score="magnitude", target_macs=0.7, head_dims=True)
    assert (model.num_heads, model.head_dim) == (3, 2)
    assert pruned.macs[1] <= 0.7 * pruned.macs[0]


class _Default(_FreeWidth):
    def mixed(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v)


class _Measured(_FreeWidth):
    def mixed(self, q, k, v):
        return (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1) @ v


class _Worked(_FreeWidth):
    def mixed(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, scale=q.size(-1) ** -0.5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (_Default, "sets the scale of the attention, since the model's code gives none"),
        (_Measured, "has a size that is used as a number, which changes values"),
        (_Worked, "has a size that is used as a number, which changes values"),
    ],
)
def test_where_the_scale_follows_the_width_only_values_are_narrowed(build, message):
    structure = trace(build(), X, head_dims=True)
    (family,) = structure.families
    assert set(_places(family)) == {"v.weight", "out.weight"}
    for name in ("q.weight", "k.weight"):
        assert message in {reason.message for reason, _ in structure.explain(name).axes[0].fixed}
    assert verify(build(), X, head_dims=True).difference <= 1e-12


class _Late(_Attention):
    def mixed(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, scale=self.head_dim**-0.5)


class _Literal(_Attention):
    def split(self, x):
        return x.unflatten(-1, (-1, 4)).transpose(1, 2)


@pytest.mark.parametrize("build", [_Late, _Literal])
def test_a_width_that_is_a_value_or_stands_in_the_code_stays(build):
    structure = trace(build(), X, head_dims=True)
    assert structure.families == ()
    reasons = {reason.message for reason, _ in structure.explain("q.weight").axes[0].fixed}
    assert any("would go wrong at another size" in message for message in reasons)


class _Features(_FreeWidth):
    """Zeros become ones on both sides of the product: nothing silences a position."""

    def mixed(self, q, k, v):
        return super().mixed(q.exp(), k.exp(), v)


def test_positions_that_no_zeros_silence_stay():
    structure = trace(_Features(), X, head_dims=True)
    assert [set(_places(family)) for family in structure.families] == [{"v.weight", "out.weight"}]
    reasons = {reason.message for reason, _ in structure.explain("q.weight").axes[0].fixed}
    assert any("no parameters make one of them zero there" in message for message in reasons)


class _OneSilent(_FreeWidth):
    def mixed(self, q, k, v):
        return super().mixed(q.exp(), k, v)


def test_one_factor_that_can_be_zero_is_enough():
    structure = trace(_OneSilent(), X, head_dims=True)
    consumers = {m.tensor for m in structure.families[0].members if m.consumes}
    assert consumers == {"k.weight", "k.bias"}
    assert verify(_OneSilent(), X, head_dims=True).difference <= 1e-12


@pytest.mark.parametrize(("num_heads", "kinds"), [(3, {"head", "neuron"}), (1, {"neuron"})])
def test_heads_of_pytorch_s_own_attention_stay_as_wide_as_they_are(num_heads, kinds):
    layer = nn.TransformerEncoderLayer(12, num_heads, 8, batch_first=True)
    assert {family.kind for family in trace(layer, X, head_dims=True).families} == kinds
    assert verify(layer, X, head_dims=True).difference <= 1e-12


def test_without_the_option_heads_are_units():
    (family,) = trace(_Attention(), X).families
    assert (family.kind, family.num_units) == ("head", 3)


class _Biased(_FreeWidth):
    """Every head is given a bias of its own from outside, so that heads cannot leave."""

    def mixed(self, q, k, v):
        slopes = torch.tensor([1.0, 0.5, 0.25]).view(3, 1, 1)
        distance = torch.arange(q.shape[2]) - torch.arange(q.shape[2])[:, None]
        return (q @ k.transpose(-1, -2) + slopes * distance).softmax(-1) @ v


def test_positions_leave_heads_that_cannot_leave_themselves():
    heads = trace(_Biased(), X).explain("q.weight").axes[0].holdings
    assert heads == ()
    assert [family.num_units for family in trace(_Biased(), X, head_dims=True).families] == [4, 4]
    assert verify(_Biased(), X, head_dims=True).difference <= 1e-12


class _Shuffled(nn.Module):
    """A reshape that is no business of heads, beside one that is."""

    def __init__(self):
        super().__init__()
        self.into, self.attention = nn.Linear(12, 12), _Attention()
        self.back = nn.Linear(2, 12)

    def forward(self, x):
        pairs = self.into(x).unflatten(-1, (-1, 6)).amax(-1)
        return self.attention(self.back(pairs))


def test_reshapes_that_make_no_heads_keep_their_units():
    with_dimensions = trace(_Shuffled(), X, head_dims=True)
    places = {family.kind: _places(family) for family in with_dimensions.families}
    assert places["head"]["into.weight"] == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert len(places["dimension"]["attention.q.weight"]) == 4


class _Summed(nn.Module):
    """One head; einsum multiplies the last position element by element rather than sum it."""

    def __init__(self):
        super().__init__()
        self.qkv, self.head_dim = nn.Linear(12, 6), 2
        self.gain = nn.Parameter(torch.randn(1, 1, 1))
        self.out = nn.Parameter(torch.randn(1, 2, 5))

    def forward(self, x):
        q, k, v = self.qkv(x).view(2, 7, 1, 3, self.head_dim).transpose(1, 2).unbind(3)
        mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v * torch.sigmoid(self.gain)
        return torch.einsum("bthd,hdo->bto", mixed.transpose(1, 2), self.out)


def test_the_last_position_of_a_head_may_meet_others_than_before():
    found = verify(_Summed(), X, head_dims=True)
    assert found.num_units > 0
    assert found.difference <= 1e-12
