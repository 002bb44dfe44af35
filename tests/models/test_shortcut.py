"""Shortcuts that change the shape."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from secateur.models import ZeroPadShortcut, projection_shortcut, zero_pad_shortcut


def test_hand_computed():
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    out = ZeroPadShortcut(1, 4)(x)
    kept = torch.tensor([[0.0, 2.0], [6.0, 8.0]])
    zero = torch.zeros(2, 2)
    assert_close(out, torch.stack([zero, kept, zero, zero])[None])  # 3 zeros: 1 before, 2 after


@pytest.mark.parametrize(("before", "after", "pads"), [(16, 32, (8, 8)), (10, 19, (4, 5))])
def test_pads_are_stored(before, after, pads):
    shortcut = ZeroPadShortcut(before, after)
    assert (shortcut.pad_front, shortcut.pad_back) == pads
    assert repr(shortcut) == f"ZeroPadShortcut(pad_front={pads[0]}, pad_back={pads[1]})"


@pytest.mark.parametrize("factory", [zero_pad_shortcut, projection_shortcut])
def test_nothing_happens_where_the_shape_stays(factory):
    assert isinstance(factory(8, 8, 1), nn.Identity)


@pytest.mark.parametrize("factory", [zero_pad_shortcut, projection_shortcut])
@pytest.mark.parametrize("side", [7, 8])
def test_both_kinds_give_the_shape_of_the_branch(factory, side):
    branch = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    x = torch.randn(2, 3, side, side)
    assert factory(3, 8, 2)(x).shape == branch(x).shape
