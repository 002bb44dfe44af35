"""A trace leaves a model as it was, whatever its forward does to it."""

import pytest
import torch
from torch import nn

from secateur import trace, verify
from secateur.errors import TraceError


class _Hooking(nn.Module):
    """Registers a hook on its child on the first forward, and remembers that it did."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer, self.is_hooked, self.seen = nn.Linear(3, 4), nn.Linear(4, 2), 0, []

    def forward(self, x):
        if not self.is_hooked:
            self.inner.register_forward_hook(lambda *_: self.seen.append(1))
            self.is_hooked = 1
        return self.outer(self.inner(x))


def test_hooks_that_a_forward_registers_are_gone_after_a_trace():
    model = _Hooking()
    trace(model, torch.zeros(1, 3))
    assert not model.inner._forward_hooks
    model.seen.clear()
    model(torch.zeros(1, 3))
    assert model.seen == [1]


def test_hooks_that_were_there_stay():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    seen = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    trace(model, torch.zeros(1, 3))
    seen.clear()
    model(torch.zeros(1, 3))
    assert seen == [1]


class _LayerDrop(nn.Module):
    """Leaves its middle layer out by chance while it trains, and has a parameter for training."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)])
        self.noise = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        for number, layer in enumerate(self.layers):
            if number == 1 and self.training and torch.rand([]) < 0.5:
                continue
            x = layer(x)
        return x + self.noise if self.training else x


def test_a_coin_that_decides_whether_a_layer_runs_says_yes_in_a_trace():
    model, before = _LayerDrop(), torch.get_rng_state()
    structure = trace(model, torch.zeros(1, 3))
    assert [family.num_units for family in structure.families] == [4, 4]
    assert torch.equal(torch.get_rng_state(), before)


def test_no_hook_for_all_modules_is_left_behind():
    trace(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.zeros(1, 3))
    assert not torch.nn.modules.module._has_any_global_hook()


@pytest.mark.parametrize("call", [trace, verify])
def test_a_lazy_layer_that_has_seen_no_input_is_named(call):
    model, x = nn.Sequential(nn.LazyLinear(4), nn.LazyLinear(2)), torch.randn(3, 5)
    with pytest.raises(TraceError, match=r"0\.weight is not made yet.*Call it once"):
        call(model, x)
    model(x)
    assert call(model, x).num_units == 4 // (1 + (call is verify))
