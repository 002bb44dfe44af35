"""Attention of timm that is shared, gated, reduced or merged: removal is exact."""

import pytest
import torch

from secateur import trace, verify

pytestmark = pytest.mark.real

# (settings, pixels, layers): two branches for each of the 12 blocks of ConViT, the 8 of PVT and the
# 8 serial ones of CoaT.
_EXPECTED = {
    "convit_tiny": ({"img_size": 64}, 64, 24),
    "coat_tiny": ({"img_size": 64}, 64, 16),
    "pvt_v2_b0": ({}, 64, 16),
}


@pytest.mark.parametrize("name", _EXPECTED)
def test_attention_with_a_merged_width_leaves_by_heads_and_by_layers(name):
    timm = pytest.importorskip("timm")
    settings, pixels, num_layers = _EXPECTED[name]
    model = timm.create_model(name, num_classes=7, **settings)
    example = torch.randn(1, 3, pixels, pixels)
    structure = trace(model, example, allow_inexact=True)
    assert structure.num_layers == num_layers
    free = {(m.tensor, m.axis) for family in structure.families for m in family.members}
    heads = [n for n in structure.tensors if n.endswith(("qkv.weight", "qk.weight", "kv.weight"))]
    assert heads
    assert {(name, 0) for name in heads} <= free
    found = verify(model, example, allow_inexact=True)
    assert found.difference <= 1e-10
    assert found.num_layers > 0
