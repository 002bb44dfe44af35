import copy
import math
import random
import re

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from secateur.errors import MiswiredError, NothingRemovableError, UsageError
from secateur.surgery import verify
from secateur.surgery._masked import _group_norm, _layer_norm, _rms_norm
from secateur.surgery._steady import Steady
from tests import structures


class Residual(nn.Module):
    def __init__(self, branch):
        super().__init__()
        self.branch = branch

    def forward(self, x):
        return x + self.branch(x)


class Attention(nn.Module):
    """Self-attention between two linear layers."""

    def __init__(self, *, need_weights=False, **settings):
        super().__init__()
        self.need_weights = need_weights
        self.first = nn.Linear(5, 12)
        self.attention = nn.MultiheadAttention(12, 4, batch_first=True, **settings)
        self.last = nn.Linear(12, 3)

    def forward(self, x):
        x = self.first(x)
        mixed, weights = self.attention(x, x, x, need_weights=self.need_weights)
        return {"out": self.last(mixed), "rest": [weights] if self.need_weights else []}


def conv(*middle):
    return nn.Sequential(nn.Conv2d(3, 8, 3), *middle, nn.ReLU(), nn.Conv2d(8, 4, 1))


IMAGE, TOKENS = (2, 3, 9, 9), (2, 7, 5)
NETS = {
    "grouped": lambda: (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3, groups=4), nn.Conv2d(12, 4, 1)),
        IMAGE,
    ),
    "depthwise": lambda: (conv(nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8)), IMAGE),
    "transposed": lambda: (conv(nn.ConvTranspose2d(8, 8, 3, stride=2), nn.PReLU(8)), IMAGE),
    "transposed depthwise": lambda: (conv(nn.ConvTranspose2d(8, 8, 3, groups=8)), IMAGE),
    "norm without parameters": lambda: (conv(nn.BatchNorm2d(8, affine=False)), IMAGE),
    "instance norm": lambda: (conv(nn.InstanceNorm2d(8, affine=True)), IMAGE),
    "dropout": lambda: (conv(nn.Dropout2d(0.5), nn.Dropout(0.5)), IMAGE),
    "drop-path": lambda: (
        conv(Residual(torchvision.ops.StochasticDepth(0.5, "row")), nn.BatchNorm2d(8)),
        IMAGE,
    ),
    "flattened": lambda: (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8 * 49, 4)),
        IMAGE,
    ),
    "one value a channel": lambda: (
        nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)),
        (1, 6),
    ),
    "residual": lambda: (structures.residual().model, IMAGE),
    "attention": lambda: (Attention(dropout=0.5), TOKENS),
    "attention with weights": lambda: (Attention(need_weights=True), TOKENS),
    "attention with extra keys": lambda: (
        Attention(add_bias_kv=True, add_zero_attn=True),
        TOKENS,
    ),
}
INEXACT = {
    "layer norm": lambda: (
        nn.Sequential(nn.Linear(5, 12), nn.LayerNorm(12), nn.ReLU(), nn.Linear(12, 3)),
        TOKENS,
    ),
    "RMS norm": lambda: (
        nn.Sequential(nn.Linear(5, 12), nn.RMSNorm(12), nn.Linear(12, 3)),
        TOKENS,
    ),
    "group norm": lambda: (conv(nn.GroupNorm(2, 8)), IMAGE),
    "group norm of single channels": lambda: (conv(nn.GroupNorm(8, 8)), IMAGE),
    "stream": lambda: (
        nn.Sequential(
            nn.Linear(5, 12),
            Residual(nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 16), nn.Linear(16, 12))),
            nn.LayerNorm(12),
            nn.Linear(12, 3),
        ),
        TOKENS,
    ),
}


def resnet18():
    return torchvision.models.resnet18(weights=None, num_classes=10)


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("seed", [0, 1])
def test_removal_is_exact(net, seed):
    model, shape = NETS[net]()
    found = verify(model, torch.randn(shape), seed=seed)
    assert found.difference <= 1e-10
    assert found.num_units > 0
    assert found.macs_share < 1.0


@pytest.mark.parametrize("net", INEXACT)
def test_removal_under_a_norm_equals_norms_over_the_live_channels(net):
    model, shape = INEXACT[net]()
    found = verify(model, torch.randn(shape), allow_inexact=True)
    assert found.num_units > 0


@pytest.mark.real
@pytest.mark.parametrize(
    "build", [resnet18, lambda: torchvision.models.mobilenet_v3_small(weights=None)]
)
def test_removal_from_published_networks_is_exact(build):
    found = verify(build(), torch.randn(2, 3, 64, 64))
    assert found.num_layers > 0
    assert found.macs_share < 0.5


def test_the_model_is_not_touched():
    model = structures.residual().model
    before = copy.deepcopy(model.state_dict())
    verify(model, torch.zeros(1, 3, 6, 6))
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert model.training
    assert not hasattr(model, "_secateur_edit")


def test_what_was_removed_is_counted_and_printed():
    """Half of 5 rounds to 2, half of 4 is 2; MACs were 6*5 + 5*4 + 4*3, are 6*3 + 3*2 + 2*3."""
    model, _, example = structures.mlp()
    found = verify(model, example)
    assert (found.num_families, found.num_units, found.num_layers) == (2, 4, 0)
    assert found.macs_share == pytest.approx(30 / 62)
    assert str(found).startswith(
        "exact: 4 units of 2 families and 0 layers removed (48% of the MACs left)"
    )


def test_the_seed_decides_and_no_global_generator_is_drawn_from():
    model, _, example = structures.convnet()
    state = torch.get_rng_state()
    assert verify(model, example, seed=3) == verify(model, example, seed=3)
    assert torch.equal(torch.get_rng_state(), state)


def shifted(tensor, axes):
    """Keep the wrong positions: each one moved by one, in a circle."""
    result = tensor.detach()
    for axis, kept in axes.items():
        result = result.index_select(axis, (kept + 1) % tensor.shape[axis])
    return result


def test_wrong_positions_are_caught_though_all_shapes_are_right(monkeypatch):
    monkeypatch.setattr("secateur.surgery._shrink.selected", shifted)
    model, _, example = structures.convnet()
    with pytest.raises(MiswiredError, match="The smaller ConvNet differs from the masked one by"):
        verify(model, example)


def test_a_removed_layer_that_goes_on_contributing_is_caught(monkeypatch):
    monkeypatch.setattr("secateur.surgery._verify.silence_", lambda *_: None)
    blocks = nn.Sequential(structures.Block(4, 1), nn.Flatten(), nn.Linear(4 * 25, 2))
    with pytest.raises(MiswiredError, match="differs from the masked one"):
        verify(blocks, torch.randn(2, 4, 5, 5))


@pytest.mark.parametrize("factor", [math.inf, math.nan])
def test_numbers_that_are_not_finite_do_not_pass_as_equal(monkeypatch, factor):
    class Broken(nn.Sequential):
        def forward(self, x):
            x = super().forward(x)
            return x * factor if len(self[0].weight) < 5 else x

    model = Broken(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    monkeypatch.setattr("secateur.surgery._cut.prove", lambda *_: None)
    with pytest.raises(MiswiredError, match="differs from the masked one by inf"):
        verify(model, torch.randn(2, 6))


def test_a_model_without_finite_outputs_is_refused():
    class Infinite(nn.Sequential):
        def forward(self, x):
            return super().forward(x) / 0.0

    model = Infinite(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    with pytest.raises(UsageError, match="The outputs of the masked model are not finite"):
        verify(model, torch.randn(2, 6))


def test_a_model_with_nothing_to_remove_is_refused():
    with pytest.raises(NothingRemovableError, match="The model has no family with two units"):
        verify(nn.Linear(3, 2), torch.randn(1, 3))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_a_fraction_outside_zero_and_one_is_refused(fraction):
    expected = (
        f"verify got fraction={fraction}, expected a number between 0 and 1. "
        "Pass the part of each family to remove, such as fraction=0.5."
    )
    with pytest.raises(UsageError, match=re.escape(expected)):
        verify(nn.Linear(3, 2), torch.randn(1, 3), fraction=fraction)


class Heads(nn.Module):
    """Outputs in containers: every tensor of them counts."""

    def __init__(self):
        super().__init__()
        self.body, self.first, self.second = nn.Linear(4, 6), nn.Linear(6, 2), nn.Linear(6, 3)

    def forward(self, x, *, scale):
        x = torch.relu(self.body(x)) * scale
        return {"first": self.first(x), "others": (self.second(x), None)}


def test_every_tensor_of_a_nested_output_is_compared(monkeypatch):
    inputs = {"x": torch.randn(2, 4), "scale": torch.tensor(2.0)}
    assert verify(Heads(), inputs).num_units == 3

    def forget_the_second(model, structure, live):
        model.first.weight.data[:, ~live.units[0]] = 0.0

    monkeypatch.setattr("secateur.surgery._verify.silence_", forget_the_second)
    with pytest.raises(MiswiredError, match="differs from the masked one"):
        verify(Heads(), inputs)


@pytest.mark.parametrize(
    "drop",
    [
        lambda x: F.dropout(x, 0.5),
        lambda x: F.dropout(x, 0.5, inplace=False),
        lambda x: F.dropout2d(x[None], 0.5)[0],
        lambda x: F.alpha_dropout(x, 0.5, training=True),
        lambda x: x * torch.empty_like(x).bernoulli_(0.5),
        lambda x: x * torch.bernoulli(torch.full_like(x, 0.5)),
        lambda x: torch.dropout(x, 0.5, True),
        lambda x: x * (0.5 + torch.rand(x.shape)).floor(),
        lambda x: x * torch.empty_like(x).uniform_().round(),
    ],
)
def test_nothing_is_dropped_while_a_model_is_steady(drop):
    x = torch.randn(3, 4, 5)
    assert not torch.equal(drop(x), x)
    with Steady():
        assert_close(drop(x), x)


@pytest.mark.parametrize(
    "draw",
    [lambda: torch.randn(3).tolist(), lambda: np.random.rand(3).tolist(), random.random],  # noqa: NPY002
)
def test_what_is_drawn_while_a_model_is_steady_is_drawn_again_and_unseen(draw):
    states = torch.get_rng_state(), str(np.random.get_state()), random.getstate()  # noqa: NPY002
    with Steady():
        first = draw()
    with Steady():
        assert draw() == first
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (str(np.random.get_state()), random.getstate())  # noqa: NPY002


class Noisy(nn.Module):
    """Adds noise to hidden units."""

    def __init__(self, noise):
        super().__init__()
        self.noise = noise
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        x = self.first(x)
        return self.last(x + self.noise(x))


@pytest.mark.parametrize(
    "noise",
    [
        torch.randn_like,
        lambda x: torch.empty_like(x).normal_(0, 2),
        lambda x: torch.zeros_like(x).exponential_(),
        lambda x: torch.normal(x, x.exp()),
    ],
    ids=["like", "in place", "exponential", "around"],
)
def test_removal_of_units_with_noise_of_their_own_is_exact(noise):
    assert verify(Noisy(noise), torch.randn(4, 3)).num_units == 3


def test_attention_drops_nothing_while_a_model_is_steady():
    q, k, v = torch.randn(3, 2, 4, 5, 6).unbind()
    expected = F.scaled_dot_product_attention(q, k, v)
    module = nn.MultiheadAttention(6, 2, dropout=0.5, batch_first=True)
    x = torch.randn(2, 3, 6)
    with Steady():
        assert_close(F.scaled_dot_product_attention(q, k, v, dropout_p=0.5), expected)
        assert_close(F.scaled_dot_product_attention(q, k, v, None, 0.5), expected)
        assert_close(module.train()(x, x, x)[0], module.eval()(x, x, x)[0])


def test_a_norm_over_live_channels_equals_the_norm_of_a_slice():
    """Oracle: PyTorch's own norms on the channels that are left."""
    live = torch.arange(12) % 3 != 0
    mask = live.double()
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    weight, bias = torch.rand(2, 12, dtype=torch.float64)
    expected = F.layer_norm(x[..., live], (8,), weight[live], bias[live], 1e-3)
    assert_close(_layer_norm(mask, x, (12,), weight, bias, 1e-3)[..., live], expected)
    expected = F.rms_norm(x[..., live], (8,), weight[live])
    assert_close(_rms_norm(mask, x, (12,), weight)[..., live], expected)
    image = torch.randn(2, 12, 3, 4, dtype=torch.float64)
    expected = F.group_norm(image[:, live], 4, weight[live], bias[live])
    assert_close(_group_norm(mask, image, 4, weight, bias)[:, live], expected)


class Scripted(nn.Module):
    """Holds a part that is scripted, which is followed like any other."""

    def __init__(self):
        super().__init__()
        self.part = torch.jit.script(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)))
        self.middle, self.last = nn.Linear(5, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.last(self.middle(self.part(x)).relu())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning", "ignore:The .grad attribute")
def test_removal_beside_a_scripted_part_is_exact():
    assert verify(Scripted(), torch.randn(4, 3)).num_units == 3


class Grid(nn.Module):
    """Normalises over channels and space together, with a weight for each."""

    def __init__(self, norm):
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 6, 3), norm, nn.Conv2d(6, 2, 1)

    def forward(self, x):
        return self.last(self.norm(self.first(x)).relu())


@pytest.mark.parametrize("kind", [nn.LayerNorm, nn.RMSNorm])
def test_removal_under_a_norm_over_several_axes_equals_the_norm_of_what_is_live(kind):
    x = torch.randn(2, 3, 6, 5)
    assert verify(Grid(kind([6, 4, 3])), x, allow_inexact=True).num_units == 3
