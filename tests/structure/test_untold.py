"""Layers whose tensors do not tell their sizes, and classes derived from PyTorch's own."""

import itertools
import warnings

import pytest
import torch
from torch import nn

from secateur import load, save, trace, verify
from secateur.structure import Decision
from secateur.surgery import cut_

TOKENS, IMAGE = (2, 4, 5), (2, 3, 5, 5)


def mlp(norm):
    return nn.Sequential(nn.Linear(5, 8), norm, nn.ReLU(), nn.Linear(8, 2))


def convolutions(norm):
    return nn.Sequential(nn.Conv2d(3, 8, 1), norm, nn.ReLU(), nn.Conv2d(8, 2, 1))


PLAIN = {
    "layer norm": (mlp, lambda: nn.LayerNorm(8, elementwise_affine=False), TOKENS),
    "RMS norm": (mlp, lambda: nn.RMSNorm(8, elementwise_affine=False), TOKENS),
    "group norm": (convolutions, lambda: nn.GroupNorm(2, 8, affine=False), IMAGE),
    "one channel a group": (convolutions, lambda: nn.GroupNorm(8, 8, affine=False), IMAGE),
    "instance norm": (convolutions, lambda: nn.InstanceNorm2d(8), IMAGE),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_norms_without_parameters_follow_their_input(kind):
    build, norm, shape = PLAIN[kind]
    model = build(norm())
    assert verify(model, torch.randn(shape), allow_inexact=True).num_units in {2, 4}
    structure = trace(model, torch.zeros(shape), allow_inexact=True)
    cut_(model, structure, structure.everything(), Decision(units={0: torch.tensor([1])}))
    left = 8 - structure.families[0].members[0].index.shape[1]
    assert f"{left}" in str(model[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(torch.randn(shape))


class Plain(nn.MultiheadAttention):
    """Only its constructor differs."""

    def __init__(self, width):
        super().__init__(width, 2, batch_first=True)


class Special(Plain):
    def forward(self, *args, **options):
        mixed, weights = super().forward(*args, **options)
        return mixed * 2, weights


class Around(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.first, self.attention, self.last = nn.Linear(5, 8), kind(8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x)
        return self.last(self.attention(x, x, x, need_weights=False)[0])


def test_an_attention_whose_class_adds_a_constructor_loses_heads():
    names = [family.name for family in trace(Around(Plain), torch.zeros(TOKENS)).families]
    assert "attention" in names
    verify(Around(Plain), torch.randn(TOKENS))


def test_an_attention_that_computes_something_of_its_own_is_fixed_and_says_so(tmp_path):
    structure = trace(Around(Special), torch.zeros(TOKENS))
    assert structure.families == ()
    (message,) = {
        f.reason.message for f in structure.fixed if f.what == "attention.out_proj.weight[1]"
    }
    assert message.startswith("belongs to Special, which is derived from nn.MultiheadAttention")


@pytest.mark.parametrize(
    ("norm_first", "batch_first", "bias"), list(itertools.product([True, False], repeat=3))
)
@pytest.mark.parametrize("allow_inexact", [True, False])
def test_a_transformer_with_every_option_loses_units_and_layers(
    norm_first, batch_first, bias, allow_inexact
):
    class Translator(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(5, 8), nn.Linear(8, 2)
            self.transformer = nn.Transformer(
                8, 2, 1, 1, 12, norm_first=norm_first, batch_first=batch_first, bias=bias
            )

        def forward(self, source, target, **masks):
            return self.last(self.transformer(self.first(source), self.first(target), **masks))

    source, target = torch.randn(2, 6, 5), torch.randn(2, 4, 5)
    turned = (lambda t: t) if batch_first else (lambda t: t.transpose(0, 1))
    example = {
        "source": turned(source),
        "target": turned(target),
        "tgt_mask": nn.Transformer.generate_square_subsequent_mask(4),
        "src_key_padding_mask": torch.zeros(2, 6, dtype=torch.bool),
        "tgt_is_causal": True,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = verify(Translator(), example, allow_inexact=allow_inexact)
    assert found.num_families == 5 + allow_inexact
    assert found.num_layers == 2


def test_a_smaller_norm_without_parameters_is_saved_and_loaded(tmp_path):
    def build():
        return convolutions(nn.InstanceNorm2d(8))

    model, example = build(), torch.randn(IMAGE)
    structure = trace(model, example)
    cut_(model, structure, structure.everything(), Decision(units={0: torch.tensor([1, 2])}))
    save(model, tmp_path / "saved")
    loaded = load(build, tmp_path / "saved")
    assert loaded[1].num_features == 6
    assert torch.equal(loaded(example), model(example))
