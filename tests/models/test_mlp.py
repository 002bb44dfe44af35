"""The MLP against a plain rewriting."""

import torch
from torch.testing import assert_close

from secateur.models import MLP


def test_mlp_is_linear_and_relu_in_turn():
    net, x = MLP(6, 2, hidden=(5, 4)).double(), torch.randn(3, 6, dtype=torch.float64)
    first, second = net.hidden[0], net.hidden[2]
    y = (x @ first.weight.T + first.bias).clamp_min(0)
    y = (y @ second.weight.T + second.bias).clamp_min(0)
    assert_close(net(x), y @ net.head.weight.T + net.head.bias)


def test_mlp_without_hidden_layers_is_a_linear_classifier():
    net, x = MLP(4, 3, hidden=()), torch.randn(2, 1, 2, 2)
    assert_close(net(x), x.reshape(2, 4) @ net.head.weight.T + net.head.bias)
