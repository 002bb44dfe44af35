"""LeNet-5 against a plain rewriting."""

import torch
from torch.nn import functional as F
from torch.testing import assert_close

from secateur.models import LeNet5


def test_lenet5_is_caffes():
    """No ReLU after the convolutions, one between the linear layers."""
    net, x = LeNet5().double(), torch.randn(3, 1, 28, 28, dtype=torch.float64)
    y = F.max_pool2d(F.conv2d(x, net.conv1.weight, net.conv1.bias), 2)
    y = F.max_pool2d(F.conv2d(y, net.conv2.weight, net.conv2.bias), 2).reshape(3, 800)
    y = (y @ net.fc1.weight.T + net.fc1.bias).clamp_min(0)
    assert_close(net(x), y @ net.fc2.weight.T + net.fc2.bias)


def test_lenet5_takes_other_image_sizes():
    assert LeNet5(image_size=32, in_channels=3)(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert LeNet5(image_size=17)(torch.zeros(2, 1, 17, 17)).shape == (2, 10)
