"""Weights that are computed: normalised, scaled, masked, divided by a spectral norm."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize

from secateur import load, save, trace, verify
from secateur.structure import Decision
from secateur.surgery import cut_
from tests.steps import assert_training_goes_on

old_weight_norm = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
NORMS = [
    pytest.param(parametrizations.weight_norm, id="parametrisation"),
    pytest.param(nn.utils.weight_norm, id="hook", marks=old_weight_norm),
]


def names(model, example, **options):
    return [(f.name, f.num_units) for f in trace(model, example, **options).families]


def reason(model, example, what):
    return next(f.reason for f in trace(model, example).fixed if f.what == what)


def normed(norm):
    return nn.Sequential(norm(nn.Conv1d(3, 6, 3)), nn.ReLU(), nn.Conv1d(6, 2, 1))


@pytest.mark.parametrize("norm", NORMS)
def test_filters_of_a_normalised_weight_leave_with_their_lengths(norm):
    model, example = normed(norm), torch.randn(2, 3, 8)
    (family,) = trace(model, example).families
    assert {m.axis for m in family.members if "original0" in m.tensor or "_g" in m.tensor} == {0}
    assert verify(model, example).num_units == 3


@pytest.mark.parametrize("norm", NORMS)
def test_inputs_of_a_normalised_weight_enter_its_norm(norm):
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), norm(nn.Linear(6, 2)))
    example = torch.randn(2, 3)
    assert names(model, example) == []
    assert "weight normalisation" in reason(model, example, "0.weight[0]").message
    assert verify(model, example, allow_inexact=True).num_units == 3


@pytest.mark.parametrize("dim", [0, 1, None])
def test_either_axis_of_a_transposed_convolution_may_be_normalised(dim):
    middle = parametrizations.weight_norm(nn.ConvTranspose1d(4, 6, 3), dim=dim)
    model = nn.Sequential(nn.Conv1d(3, 4, 1), middle, nn.Conv1d(6, 2, 1))
    exact = {0: [("0", 4)], 1: [("1.parametrizations.weight", 6)], None: []}
    assert names(model, torch.zeros(2, 3, 8)) == exact[dim]
    assert verify(model, torch.randn(2, 3, 8), allow_inexact=True).num_units == 5


def test_a_depthwise_convolution_with_a_normalised_weight_keeps_its_groups_in_step():
    middle = parametrizations.weight_norm(nn.Conv1d(6, 6, 3, groups=6))
    model = nn.Sequential(nn.Conv1d(3, 6, 1), middle, nn.Conv1d(6, 2, 1))
    example = torch.randn(2, 3, 8)
    structure = trace(model, example)
    cut_(model, structure, structure.everything(), Decision(units={0: torch.tensor([0, 3])}))
    assert (model[1].groups, model[1].in_channels, model[1].out_channels) == (4, 4, 4)
    verify(model, example)


def test_training_goes_on_and_a_smaller_normalised_model_is_saved(tmp_path):
    assert_training_goes_on(normed(parametrizations.weight_norm), torch.randn(2, 3, 8).double())
    model, example = normed(parametrizations.weight_norm), torch.randn(2, 3, 8)
    structure = trace(model, example)
    cut_(model, structure, structure.everything(), Decision(units={0: torch.tensor([2])}))
    save(model, tmp_path / "saved")
    loaded = load(lambda: normed(parametrizations.weight_norm), tmp_path / "saved")
    assert torch.equal(loaded(example), model(example))
    assert loaded[0].out_channels == 5


@pytest.mark.parametrize("norm", [parametrizations.spectral_norm, nn.utils.spectral_norm])
@pytest.mark.parametrize("axis", [0, 1])
def test_every_unit_enters_a_spectral_norm(norm, axis):
    model = nn.Sequential(nn.Linear(3, 6), norm(nn.Linear(6, 5)), nn.Linear(5, 2))
    example = torch.randn(4, 3)
    assert names(model, example) == []
    what = ("2.weight[1]", "0.weight[0]")[axis]
    assert "spectral norm" in reason(model, example, what).message


class Scaled(nn.Module):
    """Weights multiplied by a constant, as for an equal learning rate."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        return nn.functional.linear(x, self.weight * 0.5, self.bias / 2)


def test_a_scaled_weight_silences_what_it_reads():
    model = nn.Sequential(Scaled(3, 6), nn.ReLU(), Scaled(6, 2))
    assert names(model, torch.zeros(4, 3)) == [("0", 6)]
    assert verify(model, torch.randn(4, 3)).num_units == 3


@pytest.mark.parametrize("first", ["weight", "mask"])
def test_a_masked_weight_is_silenced_by_its_parameter(first):
    class Masked(nn.Module):
        def __init__(self, inputs, outputs):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(outputs, inputs))
            self.register_buffer("mask", (torch.rand(outputs, inputs) > 0.3).float())

        def forward(self, x):
            pair = (self.weight, self.mask) if first == "weight" else (self.mask, self.weight)
            return x @ (pair[0] * pair[1]).t()

    model = nn.Sequential(Masked(3, 6), nn.ReLU(), Masked(6, 2))
    (family,) = trace(model, torch.zeros(4, 3)).families
    assert {m.tensor for m in family.members if m.consumes} == {"2.weight"}
    assert verify(model, torch.randn(4, 3)).num_units == 3


def test_units_summed_with_a_buffer_are_fixed_since_gates_only_move_parameters():
    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 6)
            self.register_buffer("basis", torch.randn(6, 2))

        def forward(self, x):
            return self.first(x) @ self.basis

    assert names(Projected(), torch.zeros(4, 3)) == []
    found = reason(Projected(), torch.zeros(4, 3), "first.weight[0]")
    assert found.message == "is summed with a buffer as its weights, as for a spectral norm"


def test_a_parametrised_layer_of_an_unknown_kind_is_fixed_with_the_operation():
    class Sorted(nn.Module):
        def forward(self, weight):
            return weight.sort(0).values

    layer = nn.Linear(3, 6)
    parametrize.register_parametrization(layer, "weight", Sorted())
    model = nn.Sequential(layer, nn.Linear(6, 2))
    found = reason(model, torch.zeros(4, 3), "0.parametrizations.weight.original[0]")
    assert (found.message, found.operation) == (
        "is normalised or ordered along its own axis",
        "aten.sort",
    )


class _Turned(nn.Module):
    """Convolves with its kernel in another position."""

    def __init__(self, inner, outer, turn):
        super().__init__()
        self.weight, self.turn = nn.Parameter(torch.randn(outer, inner, 3, 3)), turn

    def forward(self, x):
        return nn.functional.conv2d(x, self.turn(self.weight))


@pytest.mark.parametrize(
    "turn",
    [lambda w: torch.rot90(w, 1, (2, 3)), lambda w: w.flip(3), lambda w: w.roll(1, 2)],
    ids=["rotated", "reversed", "rolled"],
)
def test_filters_of_a_kernel_that_is_turned_around_in_space_leave(turn):
    net = nn.Sequential(_Turned(3, 6, turn), nn.ReLU(), _Turned(6, 4, turn), nn.Conv2d(4, 2, 1))
    assert verify(net, torch.randn(2, 3, 8, 7)).num_units == 5
