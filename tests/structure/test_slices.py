"""Slices of an axis with units: cuts that move with the units, and those that do not."""

import copy

import pytest
import torch
from torch import nn

from secateur import verify
from secateur.structure import Decision, trace
from secateur.surgery import cut_

X = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(0))


class _Cut(nn.Module):
    """Two layers, and something with slices between them."""

    def __init__(self, width=12, kept=5):
        super().__init__()
        self.width, self.kept = width, kept
        self.into, self.out = nn.Linear(12, width), nn.Linear(width, 4)

    def forward(self, x):
        return self.out(self.between(self.into(x)))


class _Kept(_Cut):
    """The module keeps where it cuts."""

    def between(self, x):
        return torch.cat([x[..., : self.kept].relu(), x[..., self.kept :].tanh()], dim=-1)


class _Multiple(_Cut):
    """The module keeps a third of where it cuts, and units before the cut are single positions."""

    def between(self, x):
        end = 3 * self.kept
        return torch.cat([x[..., :end].relu(), x[..., end:].tanh()], dim=-1)


class _Literal(_Cut):
    def between(self, x):
        return torch.cat([x[..., :5].relu(), x[..., 5:].tanh()], dim=-1)


class _Rounded(_Cut):
    """A quarter, rounded down: one unit more need not move the cut."""

    def between(self, x):
        end = int(self.width * 0.25)
        x = x.unflatten(-1, (1, self.width))
        fixed = x[..., :end] + torch.arange(4.0)
        return torch.cat([fixed, x[..., end:].tanh()], dim=-1).flatten(-2)


class _RoundedSplit(_Rounded):
    def between(self, x):
        end = int(self.width * 0.25)
        x = x.unflatten(-1, (1, self.width))
        first, rest = x.split([end, self.width - end], dim=-1)
        return torch.cat([first + torch.arange(4.0), rest.tanh()], dim=-1).flatten(-2)


class _Comb(_Cut):
    """Every second position goes one way, its neighbour another."""

    def between(self, x):
        return torch.cat([x[..., ::2].relu(), x[..., 1::2].tanh()], dim=-1)


class _Threefold(_Cut):
    """One axis of three equal parts, whose width is kept."""

    def between(self, x):
        a, b, c = x.view(2, 7, 3 * self.kept).chunk(3, dim=-1)
        return torch.cat([a.relu(), b.tanh(), c], dim=-1)


def _units(model):
    return [
        m.index.tolist()
        for family in trace(model, X).families
        for m in family.members
        if m.tensor == "into.weight"
    ]


def test_both_sides_of_a_cut_that_moves_have_units_of_their_own():
    assert _units(_Kept()) == [[[i] for i in range(5)], [[i] for i in range(5, 12)]]


def test_neighbours_of_which_one_is_taken_leave_together():
    assert _units(_Comb()) == [[[i, i + 1] for i in range(0, 12, 2)]]


def test_a_cut_behind_everything_leaves_nothing_over():
    assert _units(_Kept(kept=12)) == [[[i] for i in range(12)]]


CUTS = [_Kept, _Comb, lambda: _Kept(kept=12), lambda: _Threefold(width=9, kept=3)]


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("build", CUTS)
def test_silencing_units_beside_a_cut_is_removing_them(build, fraction):
    found = verify(build(), X, fraction=fraction)
    assert found.num_units > 0
    assert found.difference <= 1e-12


class _Turned(_Cut):
    """What comes first goes last."""

    def between(self, x):
        return x.repeat(1, 1, 2)[..., 1 : x.shape[-1] + 1]


def test_units_before_a_cut_that_stays_stay():
    assert _units(_Turned()) == [[[0]], [[i] for i in range(1, 12)]]
    assert verify(_Turned(), X).difference <= 1e-12


class _ByOther(_Cut):
    """Where to cut is read from another tensor."""

    def __init__(self):
        super().__init__()
        self.other = nn.Linear(12, 5)
        self.last = nn.Linear(5, 3)

    def forward(self, x):
        y = self.other(x)
        x = self.into(x)
        end = y.shape[-1]
        x = torch.cat([x[..., :end].relu(), x[..., end:].tanh()], dim=-1)
        return self.out(x), self.last(y)


def test_what_lies_before_a_cut_loses_as_many_as_what_it_is_read_from():
    families = trace(_ByOther(), X).families
    assert [{m.tensor for m in f.members if not m.consumes} for f in families] == [
        {"into.weight", "into.bias", "other.weight", "other.bias"}, {"into.weight", "into.bias"},
    ]  # fmt: skip
    assert verify(_ByOther(), X).difference <= 1e-12


def test_a_number_follows_its_multiple_that_is_used_as_a_size():
    model = _Threefold(width=9, kept=3)
    structure = trace(model, X)
    assert _units(model) == [[[i, i + 3, i + 6] for i in range(3)]]
    cut_(model, structure, structure.everything(), Decision(units={0: torch.tensor([1])}))
    assert (model.kept, model.into.out_features) == (2, 6)


def test_sides_that_come_to_be_equally_long_stay_apart():
    model = _Kept().double().eval()
    structure = trace(model, X.double())
    small, masked = copy.deepcopy(model), copy.deepcopy(model)
    gone = {0: torch.tensor([2]), 1: torch.tensor([0, 3, 4])}
    cut_(small, structure, structure.everything(), Decision(units=gone))
    assert small.kept * 2 == small.into.out_features == 8
    with torch.no_grad():
        masked.out.weight[:, [2, 5, 8, 9]] = 0.0
    torch.testing.assert_close(small(X.double()), masked(X.double()), rtol=0, atol=1e-14)


STUCK = [
    _Literal, lambda: _Rounded(width=18), lambda: _RoundedSplit(width=18),
    lambda: _Multiple(width=14, kept=3),
]  # fmt: skip


@pytest.mark.parametrize("build", STUCK)
def test_a_cut_that_cannot_move_fixes_what_it_meets(build):
    structure = trace(build(), X)
    assert structure.families == ()
    messages = {reason.message for reason, _ in structure.explain("into.weight").axes[0].fixed}
    assert any("would go wrong at another size" in message for message in messages)
