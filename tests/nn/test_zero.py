import torch
from torch import nn
from torch.testing import assert_close

from secateur.nn import Zero


def test_zeros_have_shape_dtype_and_device_of_the_first_argument():
    x = torch.randn(2, 3, dtype=torch.float64)
    assert_close(Zero()(x, torch.randn(7)), torch.zeros(2, 3, dtype=torch.float64))


def test_a_lone_keyword_argument_gives_the_shape():
    assert Zero()(hidden_states=torch.ones(4)).tolist() == [0.0] * 4


def test_the_zeros_stand_where_the_tensor_stood_in_a_tuple():
    first, second, third = Zero((1, 3))(torch.ones(2))
    assert first is None
    assert second.tolist() == [0.0, 0.0]
    assert third is None


def test_an_encoder_runs_in_evaluation_mode_after_its_attention_became_zero():
    """The encoder reads attributes of its attention before it decides about its fused kernel."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    for each in encoder.layers:
        each.self_attn = Zero((0, 2))
    x = torch.randn(2, 3, 8)
    expected = x
    for each in encoder.layers:
        expected = each.norm1(expected)
        expected = each.norm2(expected + each.linear2(torch.relu(each.linear1(expected))))
    with torch.no_grad():
        assert_close(encoder(x), expected)
