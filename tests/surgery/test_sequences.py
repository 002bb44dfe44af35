"""Random nets, random removals one after the other: exact after each, and replayable at the end."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from secateur.structure import Decision, trace
from secateur.surgery import cut_, replay_
from secateur.surgery._masked import silence_
from secateur.surgery._randomise import randomise_


class Split(nn.Module):
    """Two branches side by side, joined by concatenation or by a sum."""

    def __init__(self, one, other, *, add):
        super().__init__()
        self.one, self.other, self.add = one, other, add

    def forward(self, x):
        one, other = self.one(x), self.other(x)
        return one + other if self.add else torch.cat([one, other], dim=1)


class Residual(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))


def random_net(seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(*choices):
        return choices[int(torch.randint(len(choices), (), generator=generator))]

    torch.manual_seed(seed)
    width = draw(4, 6, 8)
    parts = [nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    for _ in range(4):
        kind, inner = draw("conv", "grouped", "depthwise", "residual", "cat", "add"), draw(2, 4, 6)
        if kind == "conv":
            parts += [nn.Conv2d(width, 2 * inner, 3, padding=1), nn.ReLU()]
            width = 2 * inner
        elif kind == "grouped":
            parts += [nn.Conv2d(width, 2 * inner, 3, padding=1, groups=2), nn.PReLU(2 * inner)]
            width = 2 * inner
        elif kind == "depthwise":
            parts += [nn.Conv2d(width, width, 3, padding=1, groups=width), nn.BatchNorm2d(width)]
        elif kind == "residual":
            parts.append(Residual(width, inner))
        else:
            branches = [nn.Conv2d(width, inner, 1), nn.Conv2d(width, inner, 3, padding=1)]
            parts.append(Split(*branches, add=kind == "add"))
            width = inner if kind == "add" else 2 * inner
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 3))


def random_decision(structure, live, generator):
    units = {}
    for number, mask in enumerate(live.units):
        alive = mask.nonzero().flatten()
        most = min(2, len(alive) - 1)
        count = int(torch.randint(most + 1, (), generator=generator))
        units[number] = alive[torch.randperm(len(alive), generator=generator)[:count]]
    left = live.layers.nonzero().flatten().tolist()
    take = left and float(torch.rand((), generator=generator)) < 0.3
    return Decision(units=units, layers=(left[0],) if take else ())


@pytest.mark.parametrize("seed", range(25))
def test_random_removals_from_random_nets_stay_exact(seed):
    generator = torch.Generator().manual_seed(seed)
    model = random_net(seed).double()
    randomise_(model, generator)
    built, example = copy.deepcopy(model), torch.randn(2, 3, 6, 6, dtype=torch.float64)
    structure = trace(model, example)
    live, whole = structure.everything(), copy.deepcopy(model)
    for _ in range(3):
        live, edit = cut_(model, structure, live, random_decision(structure, live, generator))
        silence_(whole, structure, live)
        for training in (False, True):
            one, other = (copy.deepcopy(net).train(training) for net in (model, whole))
            assert_close(one(example), other(example), rtol=0, atol=1e-10)
        params = structure.cost.params.value(live.counts, live.layers)
        assert sum(parameter.numel() for parameter in model.parameters()) == params
    replay_(built, edit)
    assert str(built) == str(model)
    assert_close(built.state_dict(), model.state_dict(), rtol=0, atol=0)
