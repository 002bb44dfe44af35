"""CIFAR ResNets against a plain rewriting of their equations."""

import re

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from secateur.errors import UsageError
from secateur.models import BasicBlock, CifarResNet, projection_shortcut, zero_pad_shortcut


def normed(x, conv, norm, stride=1):
    y = F.conv2d(x, conv.weight, None, stride, padding=conv.padding)
    return F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_is_shortcut_plus_branch_then_relu(stride):
    block = BasicBlock(3, 3 * stride, stride, projection_shortcut).double().eval()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    branch = normed(normed(x, block.conv1, block.bn1, stride).clamp_min(0), block.conv2, block.bn2)
    short = x if stride == 1 else normed(x, block.shortcut[0], block.shortcut[1], 2)
    assert_close(block(x), (short + branch).clamp_min(0))


def test_a_silent_branch_leaves_shortcut_then_relu():
    block = BasicBlock(4, 4, 1, zero_pad_shortcut).eval()
    block.bn2.weight.data.zero_()
    x = torch.randn(2, 4, 5, 5)
    assert_close(block(x), x.clamp_min(0), rtol=0, atol=0)


@pytest.mark.parametrize("depth", [20, 32, 56])
def test_depth_counts_the_weighted_layers(depth):
    model = CifarResNet(depth)
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    assert sum(isinstance(m, kinds) for m in model.modules()) == depth


def test_stages_halve_the_image_and_double_the_channels():
    model, x = CifarResNet(20).eval(), torch.zeros(1, 16, 32, 32)
    shapes = []
    for stage in model.stages:
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_weights_have_the_variance_of_he():
    conv = CifarResNet(20).stages[2][1].conv1
    # 36,864 weights: the standard error of the deviation is 0.4 %.
    assert conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("depth", [2, 7, 21])
def test_other_depths_are_refused(depth):
    message = f"A CIFAR ResNet of depth {depth} does not exist: it must be 6n + 2 with n >= 1. Take"
    with pytest.raises(UsageError, match=re.escape(message)):
        CifarResNet(depth)
