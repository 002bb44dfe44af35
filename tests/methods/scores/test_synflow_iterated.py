"""SynFlow over single weights, iterated by the published schedule on a network like VGG."""

import pytest
import torch
from torch import nn

from secateur.methods.scores import SynFlow
from secateur.structure import trace
from tests.methods.scores.subjects import subject_of


def net():
    """Layers from 90 to 9,216 weights, wide in the middle, so that equal shares are unequal."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 10, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(10, 32, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(32, 8, 3, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4, bias=False),
    )


def iterated(model, density, num_rounds):
    """Yield masks after every round k: density^(k / n) of all weights with the highest scores."""
    subject = subject_of(model, trace(model, torch.zeros(1, 1, 12, 12)))
    masks = {name: torch.ones_like(p.detach()) for name, p in model.named_parameters()}
    total = sum(mask.numel() for mask in masks.values())
    for number in range(1, num_rounds + 1):
        scores = SynFlow().weights(subject, masks)
        flat = torch.cat([score.flatten() for score in scores.values()])
        num_gone = total - round(total * density ** (number / num_rounds))
        threshold = flat.kthvalue(num_gone).values
        masks = {name: (score > threshold).float() for name, score in scores.items()}
        yield masks


def left(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


@pytest.mark.parametrize("density", [0.1, 0.01, 0.001])
def test_no_layer_is_lost_and_masks_are_nested_and_as_dense_as_asked(density):
    model = net()
    total = sum(p.numel() for p in model.parameters())
    before = None
    for number, masks in enumerate(iterated(model, density, 100), start=1):
        assert sum(left(masks).values()) == round(total * density ** (number / 100))
        if before is not None:
            assert all(bool((masks[name] <= before[name]).all()) for name in masks)
        before = masks
    assert min(left(masks).values()) >= 1


def test_at_one_weight_a_layer_a_path_is_left():
    model = net()
    total = sum(p.numel() for p in model.parameters())
    *_, masks = iterated(model, 6 / total, 200)
    assert sum(left(masks).values()) == 6
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(parameter.abs() * masks[name])
        assert float(model(torch.ones(1, 1, 12, 12)).sum()) > 0


def test_in_one_round_a_layer_is_lost():
    """The control: this is what the schedule is for."""
    (masks,) = iterated(net(), 0.001, 1)
    assert min(left(masks).values()) == 0
