"""Sizes that modules store, after units left the traced model for real."""

import pytest
import torch
from torch import nn

from secateur.structure import Decision, Resize, resized_attributes, trace
from secateur.surgery import cut_


def cut_family(model, example, name, gone):
    structure = trace(model, example, allow_inexact=True)
    names = [family.name for family in structure.families]
    decision = Decision(units={names.index(name): torch.tensor(gone)})
    _, edit = cut_(model, structure, structure.everything(), decision)
    model(example)
    return edit


def shapes(module):
    return {n: tuple(t.shape) for n, t in [*module.named_parameters(), *module.named_buffers()]}


def resized(module, traced=None, **new):
    old = shapes(module)
    resize = Resize(module=module, traced=traced or old, old=old, new={**old, **new})
    return resized_attributes(resize)


def test_grouped_convolutions_keep_their_groups():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(12, 2, 1)
    )
    cut_family(model, torch.randn(1, 3, 7, 7), "0", [1])  # one of two positions, in all four groups
    middle = model[2]
    assert model[0].out_channels == 4
    assert (middle.in_channels, middle.out_channels, middle.groups) == (4, 12, 4)
    assert middle.weight.shape == (12, 1, 3, 3)


def test_a_grouped_convolution_left_with_one_channel_a_group_is_not_depthwise_for_that():
    """Traced with 8 channels in 4 groups, since cut to 4: now its outputs shrink."""
    conv = nn.Conv2d(4, 12, 3, groups=4)
    found = resized(conv, {"weight": (12, 2, 3, 3), "bias": (12,)}, weight=(8, 1, 3, 3), bias=(8,))
    assert found == {"out_channels": 8}


def test_depthwise_convolutions_lose_whole_groups():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3, groups=8), nn.PReLU(16), nn.Conv2d(16, 2, 1)
    )
    cut_family(model, torch.randn(1, 3, 7, 7), "0", [1, 4, 5])
    middle = model[1]
    assert (middle.in_channels, middle.out_channels, middle.groups) == (5, 10, 5)
    assert model[2].num_parameters == 10


def test_transposed_convolutions_have_their_axes_the_other_way_round():
    model = nn.Sequential(nn.Conv1d(3, 6, 3), nn.ConvTranspose1d(6, 8, 3), nn.Conv1d(8, 2, 1))
    example = torch.randn(1, 3, 7)
    cut_family(model, example, "0", [0, 1])
    cut_family(model, example, "1", [0, 1, 2])
    assert (model[1].in_channels, model[1].out_channels) == (4, 5)


def test_depthwise_transposed_convolutions_lose_groups_and_grouped_ones_do_not():
    depthwise = nn.ConvTranspose2d(6, 12, 3, groups=6)
    assert resized(depthwise, weight=(4, 2, 3, 3)) == {
        "in_channels": 4,
        "out_channels": 8,
        "groups": 4,
    }
    grouped = nn.ConvTranspose2d(6, 12, 3, groups=3)
    assert resized(grouped, weight=(3, 2, 3, 3)) == {"in_channels": 3, "out_channels": 6}


@pytest.mark.parametrize(
    ("module", "new", "expected"),
    [
        (nn.Linear(4, 6), {"weight": (5, 3)}, {"in_features": 3, "out_features": 5}),
        (
            nn.Bilinear(4, 5, 6),
            {"weight": (6, 3, 2)},
            {"in1_features": 3, "in2_features": 2},
        ),
        (nn.BatchNorm1d(4), {"weight": (3,)}, {"num_features": 3}),
        (nn.BatchNorm2d(4, affine=False), {"running_mean": (3,)}, {"num_features": 3}),
        (nn.InstanceNorm3d(4, affine=True), {"weight": (3,)}, {"num_features": 3}),
        (nn.GroupNorm(2, 8), {"weight": (6,)}, {"num_channels": 6}),
        (nn.LayerNorm((5, 8)), {"weight": (5, 6)}, {"normalized_shape": (5, 6)}),
        (nn.RMSNorm(8), {"weight": (6,)}, {"normalized_shape": (6,)}),
        (nn.Embedding(9, 8), {"weight": (9, 6)}, {"embedding_dim": 6}),
        (nn.EmbeddingBag(9, 8), {"weight": (9, 6)}, {"embedding_dim": 6}),
        (nn.PReLU(8), {"weight": (6,)}, {"num_parameters": 6}),
        (nn.PReLU(), {}, {}),
        (nn.LSTM(5, 4), {"weight_ih_l0": (16, 3)}, {"input_size": 3}),
        (nn.GRU(5, 4), {"weight_ih_l0": (9, 5)}, {"hidden_size": 3}),
        (nn.LSTM(5, 4, proj_size=3), {"weight_hr_l0": (2, 4)}, {"proj_size": 2}),
        (nn.Conv2d(4, 4, 1), {}, {}),
        (nn.Conv2d(1, 4, 3), {"weight": (3, 1, 3, 3)}, {"out_channels": 3}),
        (nn.GroupNorm(8, 8), {"weight": (6,)}, {"num_channels": 6, "num_groups": 6}),
    ],
)
def test_every_standard_module_has_its_rule(module, new, expected):
    assert resized(module, **new) == expected


def test_subclasses_count_and_unknown_modules_do_not():
    class Special(nn.Linear):
        pass

    class Unknown(nn.Module):
        def __init__(self):
            super().__init__()
            self.out_features, self.weight = 4, nn.Parameter(torch.zeros(4, 3))

    assert resized(Special(3, 4), weight=(2, 3)) == {"out_features": 2}
    assert resized(Unknown(), weight=(2, 3)) == {}


def test_the_transposed_linear_layer_of_transformers_is_known_by_its_attributes():
    class Conv1D(nn.Module):
        def __init__(self, nf, nx):
            super().__init__()
            self.nf, self.nx = nf, nx
            self.weight, self.bias = (
                nn.Parameter(torch.zeros(nx, nf)),
                nn.Parameter(torch.zeros(nf)),
            )

    assert resized(Conv1D(6, 4), weight=(4, 5), bias=(5,)) == {"nf": 5}


def test_a_weight_that_is_computed_from_others_is_left_alone():
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
    assert resized(layer) == {}
