import copy
import itertools
import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from secateur.errors import UsageError
from secateur.nn import SlimMultiheadAttention

B, L, S, E, N = 2, 5, 4, 12, 3
EXACT = {"rtol": 0.0, "atol": 1e-12}


def attention(**settings):
    module = nn.MultiheadAttention(E, N, dtype=torch.float64, **settings)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=0.5)
    return module.eval()


def inputs(module, *, batch=True):
    def tokens(length, width):
        shape = (length, width)
        if batch:
            shape = (B, length, width) if module.batch_first else (length, B, width)
        return torch.randn(shape, dtype=torch.float64)

    return tokens(L, E), tokens(S, module.kdim), tokens(S, module.vdim)


def assert_same(module, args, **kwargs):
    slim = SlimMultiheadAttention.adopt_(copy.deepcopy(module))
    expected, got = module(*args, **kwargs), slim(*args, **kwargs)
    assert_close(got[0], expected[0], **EXACT)
    assert (got[1] is None) == (expected[1] is None)
    if got[1] is not None:
        assert_close(got[1], expected[1], **EXACT)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bias": False},
        {"kdim": 7},
        {"kdim": 7, "vdim": 9, "bias": False},
        {"add_bias_kv": True},
        {"add_zero_attn": True},
        {"add_bias_kv": True, "add_zero_attn": True, "vdim": 5},
    ],
)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_with_all_heads_it_equals_the_attention_of_pytorch(settings, batch_first, need_weights):
    module = attention(batch_first=batch_first, **settings)
    assert_same(module, inputs(module), need_weights=need_weights)
    assert_same(module, inputs(module, batch=False), need_weights=need_weights)
    barred = torch.ones(L, S, dtype=torch.bool).triu(1)
    padding = torch.tensor([[False] * S, [False, False, True, True]])
    assert_same(
        module,
        inputs(module),
        need_weights=need_weights,
        attn_mask=barred,
        key_padding_mask=padding,
    )


@pytest.mark.parametrize(
    ("average", "dim", "floating"),
    list(itertools.product([False, True], [2, 3], [False, True])),
)
def test_masks_and_weights_for_each_head_equal_those_of_pytorch(average, dim, floating):
    module = attention(batch_first=True)
    shape = (L, S) if dim == 2 else (B * N, L, S)
    mask = torch.randn(shape, dtype=torch.float64) if floating else torch.rand(shape) > 0.8
    padding = torch.zeros(B, S, dtype=mask.dtype)
    padding[1, -1] = -math.inf if floating else True
    for need_weights in (False, True):
        assert_same(
            module,
            inputs(module),
            attn_mask=mask,
            key_padding_mask=padding,
            need_weights=need_weights,
            average_attn_weights=average,
        )


@pytest.mark.parametrize("need_weights", [False, True])
def test_the_causal_hint_gives_what_it_gives_in_pytorch(need_weights):
    module = attention()
    x = torch.randn(L, B, E, dtype=torch.float64)
    causal = nn.Transformer.generate_square_subsequent_mask(L, dtype=torch.float64)
    assert_same(module, (x, x, x), attn_mask=causal, is_causal=True, need_weights=need_weights)


def drop_heads_(module, kept):
    """Slice by hand: the rows of the heads that stay, in q, k and v, and the columns of out."""
    width = E // N
    rows = torch.cat([torch.arange(n * width, (n + 1) * width) for n in kept])
    packed = torch.cat([rows, rows + E, rows + 2 * E])
    for name in ("in_proj_weight", "in_proj_bias"):
        if getattr(module, name) is not None:
            getattr(module, name).data = getattr(module, name).data[packed]
    for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
        if getattr(module, name) is not None:
            getattr(module, name).data = getattr(module, name).data[rows]
    for name in ("bias_k", "bias_v"):
        if getattr(module, name) is not None:
            getattr(module, name).data = getattr(module, name).data[..., rows]
    module.out_proj.weight.data = module.out_proj.weight.data[:, rows]


@pytest.mark.parametrize("settings", [{}, {"kdim": 7, "vdim": 9}, {"add_bias_kv": True}])
@pytest.mark.parametrize("need_weights", [False, True])
def test_without_a_head_it_equals_the_whole_with_that_head_silenced(settings, need_weights):
    module = attention(batch_first=True, **settings)
    slim = copy.deepcopy(module)
    drop_heads_(slim, [0, 2])
    SlimMultiheadAttention.adopt_(slim)
    module.out_proj.weight.data[:, E // N : 2 * E // N] = 0.0
    args = inputs(module)
    got, weights = slim(*args, need_weights=need_weights, average_attn_weights=False)
    expected, all_weights = module(*args, need_weights=need_weights, average_attn_weights=False)
    assert_close(got, expected, **EXACT)
    if need_weights:
        assert_close(weights, all_weights[:, [0, 2]], **EXACT)


def test_giving_the_old_class_back_leaves_no_trace():
    module = attention()
    before = dict(vars(module))
    slim = SlimMultiheadAttention.adopt_(module)
    assert slim is module
    assert slim._qkv_same_embed_dim is False
    slim.__class__ = nn.MultiheadAttention
    assert vars(module) == before
    assert module._qkv_same_embed_dim is True


def test_hooks_and_parameters_stay_and_adopting_twice_changes_nothing():
    module = attention()
    seen = []
    module.register_forward_hook(lambda *_: seen.append(1))
    weight = module.in_proj_weight
    SlimMultiheadAttention.adopt_(SlimMultiheadAttention.adopt_(module))
    module(*inputs(module))
    assert seen == [1]
    assert module.in_proj_weight is weight


def test_an_encoder_layer_does_not_hand_a_slim_attention_to_its_fused_kernel():
    layer = nn.TransformerEncoderLayer(E, 2, 16, batch_first=True, dtype=torch.float64).eval()
    width = E // 2
    rows = torch.arange(width)
    slim = copy.deepcopy(layer)
    attn = SlimMultiheadAttention.adopt_(slim.self_attn)
    attn.in_proj_weight.data = attn.in_proj_weight.data[torch.cat([rows, rows + E, rows + 2 * E])]
    attn.in_proj_bias.data = attn.in_proj_bias.data[torch.cat([rows, rows + E, rows + 2 * E])]
    attn.out_proj.weight.data = attn.out_proj.weight.data[:, rows]
    layer.self_attn.out_proj.weight.data[:, width:] = 0.0
    x = torch.randn(B, L, E, dtype=torch.float64)
    with torch.no_grad():
        assert_close(slim(x), layer(x), **EXACT)


def test_dropout_acts_in_training_only():
    module = SlimMultiheadAttention(E, N, dropout=0.5, batch_first=True)
    x = torch.randn(B, L, E)
    for need_weights in (False, True):
        module.eval()
        assert_close(
            module(x, x, x, need_weights=need_weights)[0],
            module(x, x, x, need_weights=need_weights)[0],
        )
        module.train()
        first = module(x, x, x, need_weights=need_weights)[0]
        assert not torch.equal(first, module(x, x, x, need_weights=need_weights)[0])


def test_a_derived_class_with_methods_of_its_own_is_refused():
    class Special(nn.MultiheadAttention):
        def merge_masks(self, *args):
            return super().merge_masks(*args)

    message = (
        "Special cannot lose heads: expected nn.MultiheadAttention or a class that adds a "
        "constructor to it, since another may compute something else. Use nn.MultiheadAttention "
        "in the model, or keep this module out of the search."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        SlimMultiheadAttention.adopt_(Special(E, N))


def test_the_causal_hint_without_a_mask_is_refused():
    module = SlimMultiheadAttention(E, N)
    x = torch.randn(L, B, E)
    with pytest.raises(UsageError, match="is_causal=True without attn_mask, expected both"):
        module(x, x, x, is_causal=True)


def test_a_nested_tensor_is_refused():
    module = SlimMultiheadAttention(E, N, batch_first=True)
    with pytest.warns(UserWarning, match="nested tensors"):
        x = torch.nested.nested_tensor([torch.randn(2, E), torch.randn(3, E)])
    with pytest.raises(UsageError, match="got a nested tensor, expected a padded one"):
        module(x, x, x)


def test_gradients_equal_those_of_pytorch():
    module = attention(batch_first=True)
    slim = SlimMultiheadAttention.adopt_(copy.deepcopy(module))
    args = inputs(module)
    F.mse_loss(module(*args)[0], args[0]).backward()
    F.mse_loss(slim(*args)[0], args[0]).backward()
    for one, other in zip(module.parameters(), slim.parameters(), strict=True):
        assert_close(one.grad, other.grad, **EXACT)
