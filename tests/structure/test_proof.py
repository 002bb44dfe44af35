"""The proof check accepts right removals and refuses wrong ones, whatever their shapes."""

import copy

import pytest
import torch
from torch import nn

from secateur import verify
from secateur.errors import MiswiredError
from secateur.structure import Decision, prove, trace
from secateur.surgery import cut_


def _net():
    return nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.ChannelShuffle(2), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 1, 1)
    )


def _cut(model, structure, units):
    live = structure.everything().without(Decision(units=units))
    cut_(model, structure, structure.everything(), Decision(units=units), proof=False)
    return live


def test_a_right_removal_is_proved():
    model = _net()
    structure = trace(model, torch.zeros(1, 1, 2, 2))
    units = {n: torch.tensor([0]) for n, f in enumerate(structure.families) if f.num_units > 1}
    assert units
    prove(model, structure, _cut(model, structure, units))


class _Reordering(nn.Module):
    """Runs at any size; with `swap` it feeds the second layer in another order than before."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.swap = nn.Linear(3, 6), nn.Linear(6, 2), False

    def forward(self, x):
        hidden = self.first(x)
        a, b = hidden.chunk(2, dim=-1)
        return self.second(torch.cat([b, a] if self.swap else [a, b], dim=-1))


def test_right_shapes_in_a_wrong_order_are_refused():
    model = _Reordering()
    structure = trace(model, torch.zeros(1, 3))
    live = _cut(model, structure, {0: torch.tensor([0])})
    prove(model, structure, live)
    model.swap = True
    with pytest.raises(MiswiredError, match="meets units in another order"):
        prove(model, structure, live)


class _Scaled(nn.Module):
    """Divides by the square root of a width, as attention does."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        hidden = self.first(x)
        return self.second(hidden * self.first.out_features**-0.5)


def test_a_number_that_follows_a_width_is_refused():
    model = _Scaled()
    structure = trace(model, torch.zeros(1, 3))
    live = _cut(model, structure, {0: torch.tensor([0, 3])})
    with pytest.raises(MiswiredError, match="computes with other numbers than before"):
        prove(model, structure, live)


def test_a_model_of_another_size_is_named_with_both_shapes():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    structure = trace(model, torch.zeros(1, 3))
    live = structure.everything().without(Decision(units={0: torch.tensor([0])}))
    with pytest.raises(MiswiredError, match=r"0\.weight has shape \(4, 3\), but \(3, 3\)"):
        prove(copy.deepcopy(model), structure, live)


class _DoubleShuffle(nn.Module):
    """Repeats units over phases and deals them out by hand: positions within a unit matter."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 1)
        self.phases = nn.PixelUnshuffle(2)
        self.last = nn.Conv2d(16, 4, 1, groups=2)

    def forward(self, x):
        x = self.phases(self.first(x))
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.last(x).mean((2, 3))


def test_units_whose_positions_would_change_places_are_fixed():
    """Found by the random networks: the right units, dealt out to the wrong weights."""
    structure = trace(_DoubleShuffle(), torch.zeros(1, 1, 4, 4))
    assert "first" not in {family.name for family in structure.families}


class _SharedHeads(nn.Module):
    """Attention with two query heads for each key head, and keys that rotate."""

    def __init__(self):
        super().__init__()
        self.query, self.key = nn.Linear(6, 16, bias=False), nn.Linear(6, 8, bias=False)
        self.value, self.out = nn.Linear(6, 8, bias=False), nn.Linear(16, 2, bias=False)
        self.register_buffer("turn", torch.linspace(0.1, 1.0, 2))

    def forward(self, x):
        q, k, v = (
            layer(x).unflatten(-1, (-1, 4)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        angle = torch.arange(x.shape[1])[:, None] * torch.cat([self.turn, self.turn])
        q, k = (
            q * angle.cos() + _turned(q) * angle.sin(),
            k * angle.cos() + _turned(k) * angle.sin(),
        )
        k, v = (
            t[:, :, None].expand(-1, -1, 2, -1, -1).reshape(len(t), -1, *t.shape[2:])
            for t in (k, v)
        )
        heads = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(heads.transpose(1, 2).flatten(2))


def _turned(x):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([-b, a], dim=-1)


def test_the_last_of_several_shared_heads_is_no_false_alarm():
    model, x = _SharedHeads(), torch.randn(2, 3, 6)
    (family,) = trace(model, x).families
    assert family.num_units == 2
    assert verify(model, x).num_units == 1


class Unfolding(nn.Module):
    """Turns channels into space, and then adds two branches."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 12, 1)
        self.first, self.second = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.scale = nn.Parameter(torch.rand(3, 1, 1))

    def forward(self, x):
        batch, _, height, width = x.shape
        x = self.conv(x).reshape(batch, -1, 2, 2, height, width)
        x = x.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
        x = x + self.first(x)
        x = x + self.second(x)
        return x * self.scale


def test_a_gone_branch_that_made_positions_in_space_one_unit_is_no_false_alarm():
    """What a channel was made of in space is one unit by the branch that is added to it."""
    verify(Unfolding(), torch.randn(2, 2, 3, 5), fraction=0.9)
