"""What is measured on the side is counted: by hand, on a net of two layers."""

import torch
from torch import nn

from secateur.gates import Ablation, DamageMeter
from secateur.structure import trace
from secateur.training._side_work import SideWork


def test_a_measurement_costs_a_forward_pass_and_its_consumers_once_more():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2, bias=False))
    structure = trace(net, torch.zeros(1, 3))
    batch = torch.randn(5, 3)
    work = SideWork()

    def measure(meter, variants):
        off_VRU = torch.zeros(variants, 1, 4, dtype=torch.bool)
        off_VRU[:, :, 1] = True
        ablation = Ablation(off_VRU=off_VRU, sampled=frozenset({0}))
        before = work.macs
        damage = work.add(
            meter, ablation, 5, lambda: meter.measure(ablation, lambda: net(batch), 5)
        )
        assert damage.change_VRF.shape == (variants, 1, 1)
        return work.macs - before

    first, second = (DamageMeter(net, structure, structure.everything()) for _ in range(2))
    # 5 samples through 3 x 4 and 4 x 2 products; the second layer again for every variant.
    assert measure(first, 1) == 5 * (12 + 8) + 5 * 8
    assert measure(first, 1) == 5 * (12 + 8) + 5 * 8  # remembered
    assert measure(first, 2) == 5 * (12 + 8) + 2 * 5 * 8
    # Another meter belongs to another state of the model.
    net[2] = nn.Linear(4, 7, bias=False)
    third = DamageMeter(net, trace(net, torch.zeros(1, 3)), structure.everything())
    assert measure(second, 1) != measure(third, 1) == 5 * (12 + 28) + 5 * 28
