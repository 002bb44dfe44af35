"""The stages of VGG."""

import torch

from secateur.models import CifarVGG


def test_vgg_pools_between_its_five_stages():
    net = CifarVGG((1, 1, 1, 1, 1), width=0.05)
    sides = []
    x = torch.randn(2, 3, 32, 32)
    for layer in net.features:
        x = layer(x)
        if isinstance(layer, torch.nn.ReLU):
            sides.append(x.shape[-1])
    assert sides == [32, 16, 8, 4, 2]
