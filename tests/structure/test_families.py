"""Which units leave together, on networks small enough to say so by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from secateur.structure import trace


def _families(model, *shape, **options):
    structure = trace(model, torch.zeros(*shape), **options)
    return {family.name: family for family in structure.families}


def _slices(family):
    return {(m.tensor, m.axis): m.index.tolist() for m in family.members}


def test_a_hidden_layer_is_one_family_and_its_input_and_output_are_fixed():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    structure = trace(model, torch.zeros(1, 3))
    (family,) = structure.families
    assert (family.name, family.kind, family.num_units) == ("0", "neuron", 4)
    column = [[0], [1], [2], [3]]
    assert _slices(family) == {
        ("0.weight", 0): column,
        ("0.bias", 0): column,
        ("2.weight", 1): column,
    }
    assert [m.consumes for m in family.members] == [False, False, True]
    assert {f.what: f.reason.message for f in structure.fixed} == {
        "0.weight[1]": "multiplies a tensor of fixed size",
        "2.weight[0]": "is an output of the model",
    }


def test_a_norm_goes_with_the_channels_it_normalises():
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))
    family = _families(model, 1, 1, 4, 4)["0"]
    names = {name for name, _ in _slices(family)}
    assert names == {
        "0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "2.weight",
    }  # fmt: skip


def test_flattened_space_gives_every_filter_a_block_of_columns():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.Linear(8, 2))
    family = _families(model, 1, 1, 2, 2)["0"]
    assert _slices(family)["2.weight", 1] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_depthwise_multiplier_leaves_with_its_channel():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 4, 1, groups=2), nn.Conv2d(4, 1, 1))
    family = _families(model, 1, 1, 2, 2)["0"]
    assert _slices(family)["1.weight", 0] == [[0, 1], [2, 3]]
    assert _slices(family)["2.weight", 1] == [[0, 1], [2, 3]]


def test_grouped_convolutions_lose_the_same_position_of_every_group():
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 6, 1, groups=2), nn.Conv2d(6, 1, 1))
    families = _families(model, 1, 1, 2, 2)
    assert _slices(families["0"])["0.weight", 0] == [[0, 2], [1, 3]]
    assert _slices(families["0"])["1.weight", 1] == [[0], [1]]
    assert _slices(families["1"])["1.weight", 0] == [[0, 3], [1, 4], [2, 5]]


class _Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(3, 8)
        self.down = nn.Linear(4, 2)

    def forward(self, x):
        a, b = self.up(x).chunk(2, dim=-1)
        return self.down(a * torch.sigmoid(b))


def test_the_halves_of_a_gate_leave_together():
    family = _families(_Gated(), 1, 3)["up"]
    assert _slices(family)["up.weight", 0] == [[0, 4], [1, 5], [2, 6], [3, 7]]


class _Stale(nn.Module):
    """Reshapes with a number it keeps: correct at full size only."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.second = nn.Linear(4, 2)
        self.third = nn.Linear(2, 5)
        self.fourth = nn.Linear(5, 2)

    def forward(self, x):
        hidden = self.first(x).view(-1, 4)
        return self.fourth(self.third(self.second(hidden)))


def test_units_behind_a_stale_size_are_fixed_and_the_line_is_named():
    structure = trace(_Stale(), torch.zeros(1, 3))
    assert {family.name for family in structure.families} == {"second", "third"}
    reason = next(f.reason for f in structure.fixed if f.what == "first.weight[0]")
    assert "would go wrong at another size" in reason.message
    assert reason.source.startswith(__file__)


class _Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.norm(self.embed(x)))


def test_units_under_a_shared_statistic_are_fixed_unless_inexactness_is_allowed():
    assert _families(_Normed(), 1, 3) == {}
    family = _families(_Normed(), 1, 3, allow_inexact=True)["embed"]
    assert family.num_units == 4
    assert family.inexact is not None
    assert family.inexact.module == "norm"


class _Written(nn.Module):
    def forward(self, x):
        return F.layer_norm(x, [4])


def test_a_norm_whose_size_is_written_down_fixes_its_channels_since_it_cannot_follow():
    model = nn.Sequential(nn.Linear(3, 4), _Written(), nn.Linear(4, 2))
    structure = trace(model, torch.zeros(1, 3), allow_inexact=True)
    assert structure.families == ()
    reason = next(f.reason for f in structure.fixed if f.what == "0.weight[0]")
    assert "normalized_shape [4] does not fit" in reason.message


class _Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.second = nn.Linear(6, 2)

    def forward(self, x):
        return self.second(torch.cummax(self.first(x), dim=1).values)


def test_an_operation_without_a_rule_fixes_what_it_meets_and_is_named():
    structure = trace(_Unknown(), torch.zeros(1, 4))
    assert structure.families == ()
    reason = next(f.reason for f in structure.fixed if f.what == "first.weight[0]")
    assert "there is no rule" in reason.message
    assert reason.operation == "aten.cummax"


class _Heads(nn.Module):
    """Attention with separate projections; the number of heads follows from the weights."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 6) for _ in range(3))
        self.o = nn.Linear(6, 6)

    def forward(self, x):
        q, k, v = (
            layer(x).unflatten(-1, (-1, 2)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, scale=0.5)
        return self.o(mixed.transpose(1, 2).flatten(2))


def test_whole_heads_are_units_without_a_hint():
    (family,) = _families(_Heads(), 1, 5, 6).values()
    assert family.kind == "head"
    assert family.num_units == 3
    pairs = [[0, 1], [2, 3], [4, 5]]
    assert _slices(family) == {
        (f"{name}.{kind}", axis): pairs
        for name, kind, axis in [
            *((n, k, 0) for n in "qkv" for k in ("weight", "bias")),
            ("o", "weight", 1),
        ]
    }


class _Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.first = nn.Linear(3, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.inner(F.relu(self.inner(self.first(x)))))


def test_a_module_called_twice_ties_its_input_to_its_output():
    family = _families(_Twice(), 1, 3)["inner"]
    assert set(_slices(family)) == {
        ("inner.weight", 0), ("inner.weight", 1), ("inner.bias", 0), ("first.weight", 0),
        ("first.bias", 0), ("last.weight", 1),
    }  # fmt: skip


def test_a_model_with_auxiliary_heads_is_traced_in_both_modes():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.main, self.extra = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)

        def forward(self, x):
            hidden = self.first(x).relu()
            if self.training:
                return self.main(hidden), self.extra(hidden)
            return self.main(hidden)

    family = _families(Auxiliary(), 2, 3)["first"]
    assert ("extra.weight", 1) in _slices(family)


@pytest.mark.parametrize("training", [True, False])
def test_tracing_leaves_the_model_as_it_was(training):
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Dropout(), nn.Conv2d(3, 2, 1))
    model.train(training)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parameters = list(model.parameters())
    trace(model, torch.zeros(1, 1, 4, 4))
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert all(module.training is training for module in model.modules())
