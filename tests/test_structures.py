"""The hand-made structures agree with the models they describe."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.structures import convnet, mlp, residual


@pytest.mark.parametrize("build", [mlp, convnet, residual])
def test_the_cost_of_the_full_model_equals_a_direct_count(build):
    model, structure, example = build()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(example)
    assert structure.cost.macs.value() == counter.get_total_flops() / 2
    assert structure.cost.params.value() == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("build", [mlp, convnet, residual])
def test_every_member_points_into_its_tensor(build):
    model, structure, _ = build()
    state = model.state_dict()
    for family in structure.families:
        for member in family.members:
            assert member.index.numel() == state[member.tensor].shape[member.axis]


@pytest.mark.parametrize("block", ["block1", "block2"])
def test_a_silenced_block_passes_its_input_through(block):
    model, _, example = residual()
    model.eval()
    module = getattr(model, block)
    stream = torch.relu(model.bn0(model.conv0(example)))
    with torch.no_grad():
        module.bn2.weight.zero_()
        module.bn2.bias.zero_()
    torch.testing.assert_close(module(stream), stream, rtol=0, atol=0)
