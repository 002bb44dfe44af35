"""Patterns of published architectures, each in its smallest form: removal equals silence."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateur import verify
from secateur.structure import Decision, trace
from secateur.surgery import cut_


class _PaddedThenSplit(nn.Module):
    """Dual path networks: channels from elsewhere, padded or cut, that are split again."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 4, 1), nn.Conv2d(2, 1, 1)
        self.side = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Conv2d(3, 1, 1))

    def forward(self, x):
        padded = F.pad(self.stem(x), (0, 0, 0, 0, 0, 2))
        a, b, c = padded.chunk(3, 1)
        return self.head(a + b + c) + self.side(x)


def test_joint_labels_over_padding_come_to_rest():
    model = _PaddedThenSplit()
    assert [family.name for family in trace(model, torch.zeros(1, 1, 3, 3)).families] == ["side.0"]
    verify(model, torch.randn(2, 1, 3, 3))


class _Auxiliary(nn.Module):
    """Inception: a head that only training runs, and that pools to a single position."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)
        self.extra = nn.Sequential(nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3), nn.ReLU())
        self.last = nn.Linear(3, 2)

    def forward(self, x):
        x = self.stem(x).relu()
        out = self.head(x.mean((2, 3)))
        if self.training:
            return out, self.last(self.extra(F.adaptive_avg_pool2d(x, 1)).flatten(1))
        return out


def test_one_image_is_enough_to_trace_a_batch_norm_in_training_mode():
    verification = verify(_Auxiliary(), torch.randn(1, 1, 5, 5))
    assert verification.num_families == 2


class _Positional(nn.Module):
    """ConViT: a buffer that the forward replaces by one that fits its input."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.weigh = nn.Linear(2, 1)
        self.register_buffer("places", torch.zeros(1, 1, 2), persistent=False)

    def forward(self, x):
        if self.places.shape[1] != x.shape[1]:
            steps = torch.linspace(0, 1, x.shape[1], dtype=self.weigh.weight.dtype)
            self.places = torch.stack([steps, steps.square()], -1)[None]
        return self.head(self.embed(x).relu() * self.weigh(self.places))


def test_a_buffer_may_be_replaced_by_one_that_fits_the_input():
    model, example = _Positional(), torch.randn(2, 5, 3)
    assert verify(model, example).num_families == 1
    structure = trace(model, example)
    model(example)
    decision = Decision(units={0: torch.tensor([1])})
    cut_(model, structure, structure.everything(), decision)
    assert model(example).shape == (2, 5, 2)


class _Aggregated(nn.Module):
    """CoaT: class tokens of several scales, mixed by a convolution over the scales."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)
        self.mix, self.head = nn.Conv1d(2, 1, 1), nn.Linear(4, 2)

    def forward(self, x):
        tokens = torch.stack([self.a(x), self.b(x)], 1)
        return self.head(self.mix(tokens.relu()).squeeze(1))


def test_channels_pass_along_an_axis_that_a_convolution_treats_position_by_position():
    model, example = _Aggregated(), torch.randn(5, 3)
    assert verify(model, example).num_units == 2
    structure = trace(model, example)
    macs = structure.cost.macs
    assert macs.value() == 5 * (2 * 3 * 4 + 2 * 4 + 4 * 2)
    assert macs.value(torch.tensor([3])) == 5 * (2 * 3 * 3 + 2 * 3 + 3 * 2)


class _Shifted(_Aggregated):
    def __init__(self):
        super().__init__()
        self.mix = nn.Conv1d(2, 1, 3, padding=1)


def test_channels_that_a_kernel_mixes_with_their_neighbours_are_fixed():
    structure = trace(_Shifted(), torch.randn(5, 3))
    assert not structure.families
    messages = {fixed.reason.message for fixed in structure.fixed}
    assert "is a spatial axis of a convolution" in messages


class _Gated(nn.Module):
    """MambaOut: gate, identity and convolved channels out of one layer, split unevenly."""

    def __init__(self):
        super().__init__()
        self.expand, self.shrink = nn.Linear(3, 12), nn.Linear(6, 2)
        self.conv = nn.Conv1d(2, 2, 3, padding=1, groups=2)
        self.sizes = (6, 4, 2)

    def forward(self, x):
        gate, same, mixed = torch.split(self.expand(x), self.sizes, dim=-1)
        mixed = self.conv(mixed.transpose(1, 2)).transpose(1, 2)
        return self.shrink(F.gelu(gate) * torch.cat([same, mixed], -1))


def test_parts_of_different_size_lose_units_of_their_own():
    model, example = _Gated(), torch.randn(2, 4, 3)
    assert [family.num_units for family in trace(model, example).families] == [4, 2]
    assert verify(model, example).num_families == 2


class _NumberedParts(_Gated):
    def forward(self, x):
        gate, same, mixed = self.expand(x).split([6, 4, 2], dim=-1)
        return self.shrink(F.gelu(gate) * torch.cat([same, mixed], -1))


def test_parts_whose_sizes_are_written_in_the_code_are_fixed():
    structure = trace(_NumberedParts(), torch.randn(2, 4, 3))
    assert not structure.families
    assert any("would go wrong at another size" in f.reason.message for f in structure.fixed)


class _Scaled(nn.Module):
    """BEiT: a class token before the patches, and branches scaled by a parameter of the block."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.stem, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.norms = nn.ModuleList(nn.LayerNorm(4) for _ in range(3))
        self.mlps = nn.ModuleList(nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 4)) for _ in range(3))
        self.scales = nn.ParameterList(torch.full((4,), 0.1) for _ in range(3))

    def forward(self, x):
        x = torch.cat([self.token.expand(len(x), -1, -1), self.stem(x)], dim=1)
        for norm, mlp, scale in zip(self.norms, self.mlps, self.scales, strict=True):
            x = x + scale * mlp(norm(x))
        return self.head(x[:, 0])


@pytest.mark.parametrize("seed", range(3))
def test_tokens_beside_padding_may_be_met_in_any_order_once_a_layer_is_gone(seed):
    verification = verify(_Scaled(), torch.randn(1, 2, 3), fraction=0.7, seed=seed)
    assert verification.num_layers == 2


class _OwnNorms(nn.Module):
    """ConvNeXt V2 and RMS norms: statistics over channels in the model's own code."""

    def __init__(self):
        super().__init__()
        self.stem, self.wide, self.head = nn.Linear(3, 6), nn.Linear(6, 8), nn.Linear(8, 2)
        self.scale = nn.Parameter(torch.rand(6) + 0.5)

    def forward(self, x):
        x = self.stem(x)
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.scale
        y = self.wide(x).relu()
        spread = y.norm(p=2, dim=1, keepdim=True)
        y = y * (spread / (spread.mean(dim=-1, keepdim=True) + 1e-6))
        z = (y - y.mean(-1, True)) / torch.std(y, dim=-1, keepdim=True)
        variance, mean = torch.var_mean(z, -1, correction=0, keepdim=True)
        return self.head((z - mean) / (variance + 1e-5).sqrt() + y.var(-1, keepdim=True))


def test_a_statistic_in_the_model_s_own_code_is_taken_over_what_is_left():
    model, example = _OwnNorms(), torch.randn(2, 4, 3)
    assert not trace(model, example).families
    assert verify(model, example, allow_inexact=True).num_families == 2


class _Ghost(nn.Module):
    """GhostNet: half of the channels are computed, the others worked out from them."""

    def __init__(self):
        super().__init__()
        self.primary = nn.Sequential(nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2), nn.ReLU())
        self.cheap = nn.Sequential(nn.Conv2d(2, 2, 3, padding=1, groups=2), nn.BatchNorm2d(2))

    def forward(self, x):
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], 1)


class _GhostBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.ghost, self.shortcut = _Ghost(), nn.Sequential()

    def forward(self, x):
        return self.ghost(x) + self.shortcut(x)


def test_a_branch_may_end_in_a_concatenation_of_which_every_part_has_an_end():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), _GhostBlock(), nn.Conv2d(4, 1, 1))
    (layer,) = trace(model, torch.zeros(2, 1, 3, 3)).layers
    ends = {"1.ghost.primary.1", "1.ghost.cheap.1"}
    assert {name.rpartition(".")[0] for name in layer.closing} == ends
    assert verify(model, torch.randn(2, 1, 3, 3)).num_layers == 1
