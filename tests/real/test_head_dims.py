"""Positions inside the heads of published models leave exactly, with the numbers that follow."""

import copy

import pytest
import torch
from torch import nn

import secateur
from secateur.structure import Decision, trace
from secateur.surgery import cut_
from secateur.surgery._masked import silence_
from tests.counting import counted_macs

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
]

TOKENS = torch.arange(12).reshape(2, 6)


def _vit():
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2)
    for block in model.blocks:
        block.attn.fused_attn = False  # whose scale follows the width of a head
    return model


def _llama():
    transformers = pytest.importorskip("transformers")
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=32, num_hidden_layers=2, intermediate_size=40, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=50, use_cache=False,
        )
    )  # fmt: skip


def _bert():
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        hidden_size=32, num_hidden_layers=2, intermediate_size=40, num_attention_heads=4,
        vocab_size=50,
    )  # fmt: skip
    return transformers.BertModel(config)


def _gpt_neox():
    transformers = pytest.importorskip("transformers")
    return transformers.GPTNeoXForCausalLM(
        transformers.GPTNeoXConfig(
            hidden_size=64, num_hidden_layers=2, intermediate_size=40, num_attention_heads=4,
            vocab_size=50, use_cache=False,
        )
    )  # fmt: skip


def _gptj():
    transformers = pytest.importorskip("transformers")
    return transformers.GPTJForCausalLM(
        transformers.GPTJConfig(
            n_embd=64, n_layer=2, n_head=4, rotary_dim=8, n_positions=16, vocab_size=50,
            use_cache=False,
        )
    )  # fmt: skip


def _phi():
    transformers = pytest.importorskip("transformers")
    return transformers.PhiForCausalLM(
        transformers.PhiConfig(
            hidden_size=64, num_hidden_layers=2, intermediate_size=40, num_attention_heads=4,
            vocab_size=50, use_cache=False,
        )
    )  # fmt: skip


def _phi3():
    transformers = pytest.importorskip("transformers")
    return transformers.Phi3ForCausalLM(
        transformers.Phi3Config(
            hidden_size=96, num_hidden_layers=2, intermediate_size=40, num_attention_heads=6,
            num_key_value_heads=2, vocab_size=50, pad_token_id=0, use_cache=False,
        )
    )  # fmt: skip


# (builds, example, units of each family of positions, where a width is kept, width after a quarter
# of the units left). A rotary buffer is shared by the layers of a model, and so are its pairs. In
# GPT-NeoX and Phi part of a head rotates, and the rest has units of its own.
_MODELS = {
    "vit": (_vit, torch.zeros(1, 3, 32, 32), [64, 64], ("blocks.0.attn", "head_dim"), 48),
    "llama": (_llama, TOKENS, [4], ("model.layers.1.self_attn", "head_dim"), 6),
    "bert": (
        _bert, TOKENS, [8, 8], ("encoder.layer.1.attention.self", "attention_head_size"), 6,
    ),
    "gpt_neox": (
        _gpt_neox, TOKENS, [2, 12, 12], ("gpt_neox.layers.1.attention", "head_size"), 13,
    ),
    "phi": (_phi, TOKENS, [4, 8, 8], ("model.layers.1.self_attn", "rotary_ndims"), 6),
}  # fmt: skip


@pytest.fixture(params=list(_MODELS))
def case(request):
    torch.manual_seed(0)
    build, example, *expected = _MODELS[request.param]
    model = build().double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    example = torch.randn(2, 3, 32, 32).double() if example.is_floating_point() else example
    return build, model, example, expected


def _output(model: nn.Module, example: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found = model(example)
    return found if isinstance(found, torch.Tensor) else found[0]


def _quarter(structure):
    """The first quarter of the positions inside heads, and nothing else."""
    return Decision(
        units={
            number: torch.arange(family.num_units // 4)
            for number, family in enumerate(structure.families)
            if family.kind == "dimension"
        }
    )


def test_a_quarter_of_every_head_leaves_exactly(case):
    _, whole, example, (num_units, (module, slot), width) = case
    structure = trace(whole, example, head_dims=True)
    families = [family for family in structure.families if family.kind == "dimension"]
    assert [family.num_units for family in families] == num_units
    assert "head" not in {family.kind for family in structure.families}
    small, masked = copy.deepcopy(whole), copy.deepcopy(whole)
    live, _ = cut_(small, structure, structure.everything(), _quarter(structure))
    silence_(masked, structure, live)
    expected, found = _output(masked, example), _output(small, example)
    assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-10
    assert float((_output(whole, example) - expected).abs().max() / expected.abs().max()) > 1e-3
    assert getattr(small.get_submodule(module), slot) == width
    assert structure.cost.macs.value(live.counts, live.layers) == counted_macs(small, example)
    left = sum(parameter.numel() for parameter in small.parameters())
    assert structure.cost.params.value(live.counts, live.layers) == left


def test_narrowed_heads_are_saved_and_loaded(case, tmp_path):
    build, model, example, _ = case
    structure = trace(model, example, head_dims=True)
    cut_(model, structure, structure.everything(), _quarter(structure))
    secateur.save(model, tmp_path / "saved")
    loaded = secateur.load(lambda: build().double(), tmp_path / "saved").eval()
    assert torch.equal(_output(loaded, example), _output(model, example))


def _qwen3():
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen3Config(
        hidden_size=32, num_hidden_layers=2, intermediate_size=40, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, vocab_size=50, use_cache=False,
    )  # fmt: skip
    return transformers.Qwen3ForCausalLM(config)


def _gemma3():
    transformers = pytest.importorskip("transformers")
    config = transformers.Gemma3TextConfig(
        hidden_size=32, num_hidden_layers=2, intermediate_size=40, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, vocab_size=50, use_cache=False,
    )  # fmt: skip
    return transformers.Gemma3ForCausalLM(config)


@pytest.mark.parametrize(("build", "num_units"), [(_gptj, [4, 8, 4, 8]), (_phi3, [8])])
def test_half_of_every_head_leaves_models_that_round_to_float32(build, num_units):
    structure = trace(build(), TOKENS, head_dims=True)
    assert [f.num_units for f in structure.families if f.kind == "dimension"] == num_units
    found = secateur.verify(build(), TOKENS, head_dims=True)
    assert found.precision == "float32"
    assert found.difference <= 1e-6


@pytest.mark.parametrize("build", [_qwen3, _gemma3])
def test_positions_of_normalised_heads_leave_where_inexact_units_may(build):
    structure = trace(build(), TOKENS, head_dims=True)
    assert "dimension" not in {family.kind for family in structure.families}
    (name,) = (n for n in structure.tensors if n.endswith("layers.0.self_attn.q_proj.weight"))
    reasons = {reason.message for reason, _ in structure.explain(name).axes[0].fixed}
    assert reasons == {"shares a statistic over all units of this axis"}
    inexact = trace(build(), TOKENS, head_dims=True, allow_inexact=True)
    assert [f.num_units for f in inexact.families if f.kind == "dimension"] == [4]
    # Both round to float32 in their norms.
    found = secateur.verify(build(), TOKENS, head_dims=True, allow_inexact=True)
    assert found.difference <= 1e-6
