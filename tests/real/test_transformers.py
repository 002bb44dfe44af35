"""Transformers of every kind from small configs: removal is exact, forward and backward run."""

import copy
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from secateur import trace, verify
from secateur.structure import Decision
from secateur.surgery import cut_

pytestmark = [
    pytest.mark.real,
    # What transformers says about itself while it builds models from configs.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:transformers"),
    pytest.mark.filterwarnings("ignore::FutureWarning:transformers"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

_ZOO = Path(__file__).parents[2] / "benchmarks" / "_zoo_transformers.py"

# (families, layers) that can at least be removed, read off once. Layers whose attention keeps keys
# and values for the next call stay, unless the example switches the cache off.
_EXPECTED = {
    "bert": (5, 4),
    "deberta_v2": (5, 2),
    "albert": (3, 0),
    "gpt2": (4, 2),
    "gpt_neox": (4, 0),
    "opt": (4, 2),
    "llama": (4, 2),
    "qwen3": (4, 2),
    "gemma2": (4, 2),
    "phi3": (4, 2),
    "mixtral": (2, 2),
    "qwen2_moe": (4, 2),
    "bloom": (2, 2),
    "t5": (7, 4),
    "bart": (10, 6),
    "vit": (4, 4),
    "swin": (8, 8),
    "convnext": (5, 5),
    "wav2vec2": (5, 5),
    "hubert": (5, 5),
    "whisper": (11, 6),
    "clip": (8, 8),
    "siglip": (9, 9),
    "llava": (9, 6),
    "blip": (8, 10),
}


@pytest.fixture(scope="module")
def zoo():
    """Load the benchmark's list, which is no package."""
    pytest.importorskip("transformers")
    spec = importlib.util.spec_from_file_location("_zoo_transformers", _ZOO)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        state = torch.get_rng_state()
        yield {name: (build, example) for name, build, example in module.transformers_models()}
        torch.set_rng_state(state)
    finally:
        del sys.modules[spec.name]


@pytest.mark.parametrize("name", _EXPECTED)
def test_removal_from_a_transformer_is_exact(zoo, name):
    build, example = zoo[name]
    model = build()
    structure = trace(model, example)
    num_families, num_layers = _EXPECTED[name]
    assert len(structure.families) >= num_families
    assert structure.num_layers >= num_layers
    assert verify(model, example).difference <= 1e-10


def test_the_widths_of_a_segformer_follow_its_reduced_keys_and_values(zoo):
    build, example = zoo["segformer"]
    structure = trace(build(), example, allow_inexact=True)
    free = {(m.tensor, m.axis) for family in structure.families for m in family.members}
    stages = [f"segformer.stages.{i}.patch_embeddings.proj.weight" for i in range(4)]
    assert {(name, 0) for name in stages} <= free
    assert verify(build(), example, allow_inexact=True).difference <= 1e-10


def test_a_falcon_without_a_cache_loses_attention_and_mlp_of_a_block_together(zoo):
    build, example = zoo["falcon"]
    structure = trace(build(), example | {"use_cache": False})
    parallel = [layer for layer in structure.layers if len(layer.stubs) > 1]
    assert len(parallel) == 2
    assert verify(build(), example | {"use_cache": False}).num_layers == 2


@pytest.mark.parametrize("name", ["llama", "gemma3", "phi3", "mamba"])
def test_a_stream_under_norms_in_float32_differs_by_their_rounding_only(zoo, name):
    build, example = zoo[name]
    found = verify(build(), example, allow_inexact=True)
    assert found.precision == "float32"
    assert found.difference <= 4 * 2**-23


@pytest.mark.parametrize("name", ["bert", "llama", "mixtral", "t5", "swin", "whisper", "clip"])
def test_a_smaller_transformer_still_learns(zoo, name):
    build, example = zoo[name]
    model = build()
    shapes = [t.shape for t in _tensors(model(**example).values())][:1]
    structure = trace(model, example)
    units = {n: torch.arange(f.num_units // 4) for n, f in enumerate(structure.families)}
    decision = Decision(units=units, layers=tuple(range(0, structure.num_layers, 2)))
    cut_(model, structure, structure.everything(), decision)
    output = _tensors(model.train()(**example).values())
    assert output[0].shape == shapes[0]
    sum(t.float().square().mean() for t in output).backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


def test_without_its_cache_every_branch_of_a_decoder_can_go(zoo):
    build, example = zoo["llama"]
    model = build()
    structure = trace(model, example | {"use_cache": False})
    assert structure.num_layers == 4
    assert verify(model, example | {"use_cache": False}).num_layers == 2


def test_a_decoder_goes_on_generating_from_its_cache_after_heads_left(zoo):
    build, example = zoo["llama"]
    model = build()
    structure = trace(model, example)
    heads = {n: torch.tensor([0]) for n, f in enumerate(structure.families) if f.num_units == 2}
    cut_(model, structure, structure.everything(), Decision(units=heads))
    tokens = example["input_ids"]
    with torch.no_grad():
        whole = model(input_ids=tokens).logits[:, -1]
        past = model(input_ids=tokens[:, :-1]).past_key_values
        step = model(input_ids=tokens[:, -1:], past_key_values=past).logits[:, -1]
    torch.testing.assert_close(step, whole)


def test_a_trace_on_the_meta_device_needs_no_weights(zoo):
    build, example = zoo["llama"]
    with torch.device("meta"):
        model = build()
    structure = trace(model, example)
    assert structure.num_units == trace(build(), example).num_units
    small = copy.deepcopy(model)
    units = {n: torch.tensor([0]) for n, f in enumerate(structure.families) if f.num_units > 1}
    cut_(small, structure, structure.everything(), Decision(units=units))
    assert all(p.device.type == "meta" for p in small.parameters())


def _tensors(value: object) -> list[Tensor]:
    return [t for t in tree_leaves(list(value)) if isinstance(t, Tensor) and t.is_floating_point()]
