"""PyTorch's own encoders, whose evaluation mode hands whole layers to a fused kernel."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from secateur.structure import Decision, trace
from secateur.surgery import cut_


def build(*, norm_first=False):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(
        12, 2, 16, batch_first=True, dropout=0.0, dtype=torch.float64, norm_first=norm_first
    )
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first)
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("part", [0, 1])
def test_a_branch_can_go_from_the_first_layer_and_padded_batches_still_run(norm_first, part):
    """Without gradients in evaluation mode the kernel would be taken."""
    model = build(norm_first=norm_first)
    whole = copy.deepcopy(model)
    whole.use_nested_tensor = False  # PyTorch warns of its nested tensors
    example = torch.randn(2, 5, 12, dtype=torch.float64)
    structure = trace(model, example)
    assert len(structure.layers) == 4
    closing = structure.layers[part].closing
    for name in closing:
        whole.get_parameter(name).data.zero_()
    cut_(model, structure, structure.everything(), Decision(layers=(part,)))
    padding = torch.tensor([[False] * 5, [False, False, False, True, True]])
    with torch.no_grad():
        assert_close(model(example), whole(example), rtol=0, atol=1e-10)
        got = model(example, src_key_padding_mask=padding)
        expected = whole(example, src_key_padding_mask=padding)
    assert_close(got[~padding], expected[~padding], rtol=0, atol=1e-10)


def test_a_refused_removal_gives_the_encoder_its_kernel_back(monkeypatch):
    model = build()
    example = torch.randn(2, 5, 12, dtype=torch.float64)
    structure = trace(model, example)

    def refuse(*_):
        assert model.use_nested_tensor is False
        raise KeyboardInterrupt

    monkeypatch.setattr("secateur.surgery._cut.prove", refuse)
    heads = next(i for i, family in enumerate(structure.families) if family.kind == "head")
    decision = Decision(units={heads: torch.tensor([0])}, layers=(3,))
    with pytest.raises(KeyboardInterrupt):
        cut_(model, structure, structure.everything(), decision)
    assert model.use_nested_tensor is True
    assert all(type(layer.self_attn) is nn.MultiheadAttention for layer in model.layers)
