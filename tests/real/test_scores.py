"""Published architectures are scored and pruned: gates, attention, depthwise kernels, tokens."""

import pytest
import timm
import torch
import torchvision
import transformers

import secateur

pytestmark = pytest.mark.real


def convolutional():
    return torchvision.models.mobilenet_v3_small(weights=None), torch.randn(2, 3, 64, 64)


def attention():
    model = timm.create_model("vit_tiny_patch16_224", depth=3, img_size=64)
    return model, torch.randn(2, 3, 64, 64)


def language():
    config = transformers.LlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        vocab_size=100,
        use_cache=False,
    )
    model = transformers.LlamaForCausalLM(config)
    return model, {"input_ids": torch.randint(5, 90, (2, 12))}


def squares(model, batch):
    outputs = model(**batch) if isinstance(batch, dict) else model(batch)
    logits = getattr(outputs, "logits", outputs)
    return logits.square().mean()


@pytest.mark.parametrize("score", ["magnitude", "snip", "synflow", "taylor", "taylor-weights"])
@pytest.mark.parametrize("build", [convolutional, attention, language])
def test_published_networks_are_scored_and_pruned(build, score):
    model, batch = build()
    model.eval()
    pruned = secateur.prune(
        model, batch, score=score, target_params=0.8, data=[batch], loss=squares
    )
    assert torch.isfinite(pruned.scores).all()
    assert (pruned.scores > 0).float().mean() > 0.3
    assert pruned.params[1] <= 0.8 * pruned.params[0]
    assert pruned.params[1] == sum(parameter.numel() for parameter in model.parameters())
    squares(model.train(), batch).backward()
