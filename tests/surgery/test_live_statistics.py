"""Statistics over units that no stored weight of a norm names."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur import verify
from secateur.structure import trace


def _layer_norm(net, x):
    return F.layer_norm(x, x.shape[-1:], net.weight * 1.0, net.bias * 1.0)


def _rms_norm(net, x):
    return F.rms_norm(x, x.shape[-1:], net.weight * 1.0)


def _group_norm(net, x):
    return F.group_norm(x, 2, net.weight * 1.0, net.bias * 1.0)


class Converted(nn.Module):
    """Norms by a weight that it converts first, as code does that computes norms in float32."""

    def __init__(self, norm):
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 3)
        self.weight, self.bias = nn.Parameter(torch.rand(8)), nn.Parameter(torch.rand(8))
        self.norm = norm

    def forward(self, x):
        return self.down(torch.relu(self.norm(self, self.up(x))))


@pytest.mark.parametrize("norm", [_layer_norm, _rms_norm, _group_norm])
def test_a_norm_by_a_converted_weight_is_taken_over_live_channels(norm):
    net, x = Converted(norm), torch.randn(5, 4)
    assert not trace(net, x).families
    assert trace(net, x, allow_inexact=True).num_units in {4, 8}
    assert verify(net, x, allow_inexact=True).difference <= 1e-10


class Penalised(nn.Module):
    """Returns the mean square of what it found, too, while it trains."""

    def __init__(self):
        super().__init__()
        self.up, self.code, self.down = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 3)
        self.other = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.up(x))
        if not self.training:
            return self.other(x), None
        code = self.code(x)
        return self.other(x) + self.down(code), code.square().mean()


def test_a_mean_that_is_taken_in_training_only_is_taken_over_live_units():
    net, x = Penalised(), torch.randn(5, 4)
    names = {family.name for family in trace(net, x, allow_inexact=True).families}
    assert names == {"up", "code"}
    assert verify(net, x, allow_inexact=True).difference <= 1e-10


class Averaging(nn.Module):
    """Calls the same function on other units first in one mode than in the other."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.extra = nn.Linear(4, 8), nn.Linear(4, 6), nn.Linear(4, 7)
        self.ends = nn.ModuleList(nn.Linear(n, 3) for n in (8, 6, 7))

    def forward(self, x):
        a, b = self.one(x), self.two(x)
        result = 0.0
        if self.training:
            c = self.extra(x)
            result = self.ends[2](c - c.mean(-1, keepdim=True))
        result = result + self.ends[0](a - a.mean(-1, keepdim=True))
        return result + self.ends[1](b - b.mean(-1, keepdim=True))


def test_statistics_are_counted_in_each_mode_by_itself():
    net, x = Averaging(), torch.randn(5, 4)
    assert trace(net, x, allow_inexact=True).num_units == 21
    assert verify(net, x, allow_inexact=True).difference <= 1e-10


class Lengths(nn.Module):
    """Norms by the length of a vector, as many do who write a root mean square norm by hand."""

    def __init__(self, norm):
        super().__init__()
        self.up, self.gain, self.down = (
            nn.Linear(4, 8),
            nn.Parameter(torch.rand(8)),
            nn.Linear(8, 3),
        )
        self.scale = 8**0.5
        self.norm = norm

    def forward(self, x):
        return self.down(self.norm(self.up(x)) * self.scale * self.gain)


@pytest.mark.parametrize(
    "norm",
    [
        lambda x: F.normalize(x, dim=-1),
        lambda x: F.normalize(x, p=3.0),
        lambda x: x / x.norm(dim=-1, keepdim=True),
        lambda x: x / torch.norm(x, p=1, dim=-1, keepdim=True),
        lambda x: x / torch.linalg.vector_norm(x, dim=-1, keepdim=True),
    ],
)
def test_the_length_of_a_vector_is_taken_over_live_units(norm):
    net, x = Lengths(norm), torch.randn(5, 4)
    structure = trace(net, x)
    assert not structure.families
    assert "shares a statistic" in str(structure.explain("up.weight"))
    assert trace(net, x, allow_inexact=True).num_units == 8
    assert verify(net, x, allow_inexact=True).difference <= 1e-10


def test_a_length_that_no_function_of_its_own_takes_stays_fixed():
    """Cosine similarity takes the lengths itself: there is nothing to put live units into."""
    net = Lengths(lambda x: x * F.cosine_similarity(x, x.flip(0), dim=-1)[:, None])
    assert not trace(net, torch.randn(5, 4), allow_inexact=True).families
