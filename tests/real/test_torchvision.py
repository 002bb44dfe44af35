"""Real networks: removal is exact in both modes, costs agree with PyTorch's counter."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from secateur import models, trace, verify
from secateur.structure import Decision
from secateur.surgery import cut_
from tests.counting import counted_macs

pytestmark = pytest.mark.real

# (pixels, families, units, layers): the counts were read off once and are easily checked by hand
# for the simple ones, such as 8 + 4 families and 8 blocks in ResNet-18.
_EXPECTED = {
    "resnet18": (64, 12, 2880, 8),
    "resnet50": (64, 37, 11456, 16),
    "mobilenet_v3_small": (64, 27, 4872, 6),
    "efficientnet_b0": (64, 40, 11404, 9),
    "densenet121": (64, 120, 10240, 0),
    "convnext_tiny": (64, 18, 26496, 18),
    "regnet_y_400mf": (64, 53, 2048, 16),
    "shufflenet_v2_x0_5": (64, 21, 1928, 0),
    "googlenet": (64, 61, 9584, 0),
    "vgg16_bn": (32, 15, 12416, 0),
    "vit_b_16": (224, 24, 37008, 24),
    "swin_v2_t": (64, 24, 23808, 24),
}


def _build(name: str) -> nn.Module:
    options = {"init_weights": False} if name == "googlenet" else {}
    return torchvision.models.get_model(name, weights=None, **options)


@pytest.mark.parametrize("name", _EXPECTED)
def test_removal_is_exact(name: str) -> None:
    pixels = _EXPECTED[name][0]
    result = verify(_build(name), torch.randn(2, 3, pixels, pixels))
    assert result.difference <= 1e-10
    assert result.num_units > 0


@pytest.mark.parametrize("name", _EXPECTED)
def test_costs_agree_with_a_count_before_and_after_a_removal(name: str) -> None:
    pixels, num_families, num_units, num_layers = _EXPECTED[name]
    model = _build(name).eval()
    example = torch.randn(1, 3, pixels, pixels)
    structure = trace(model, example)
    assert len(structure.families) == num_families
    assert structure.num_units == num_units
    assert structure.num_layers == num_layers
    _check(model, example)


@pytest.mark.parametrize("name", ["resnet20", "resnet20-b", "vgg16-bn", "lenet5", "digits-resnet"])
def test_our_own_networks_are_exact(name: str) -> None:
    channels, pixels = {"lenet5": (1, 28), "digits-resnet": (1, 8)}.get(name, (3, 32))
    model = models.build(name, 10, channels, pixels)
    example = torch.randn(2, channels, pixels, pixels)
    assert verify(model, example).difference <= 1e-10
    _check(model.eval(), example)


def _check(model: nn.Module, example: torch.Tensor) -> None:
    structure = trace(model, example)
    cost = structure.cost
    assert cost.macs.value() == pytest.approx(counted_macs(model, example), rel=1e-9)
    assert cost.params.value() == sum(p.numel() for p in model.parameters())
    units = {
        number: torch.arange(0, family.num_units - 1, 3)
        for number, family in enumerate(structure.families)
    }
    decision = Decision(units=units, layers=tuple(range(0, structure.num_layers, 2)))
    small = copy.deepcopy(model)
    live, _ = cut_(small, structure, structure.everything(), decision)
    macs = cost.macs.value(live.counts, live.layers)
    assert macs == pytest.approx(counted_macs(small, example), rel=1e-9)
    params = cost.params.value(live.counts, live.layers)
    assert params == sum(p.numel() for p in small.parameters())
