"""Published models, made smaller, run in other runtimes and give the same numbers."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import secateur
from secateur.structure import Decision
from secateur.surgery import cut_

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra secateur[export]")
pytestmark = pytest.mark.real


class Logits(nn.Module):
    """A transformers model that returns a tensor; its own output is no plain data."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, words):
        return self.model(words).logits


def squeezenet():
    torchvision = pytest.importorskip("torchvision")
    return torchvision.models.squeezenet1_1(num_classes=10), torch.randn(1, 3, 64, 64)


def timm_model(name):
    timm = pytest.importorskip("timm")
    return timm.create_model(name, num_classes=10), torch.randn(1, 3, 160, 160)


def llama():
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_cache=False,
    )
    return Logits(transformers.LlamaForCausalLM(config)), torch.randint(50, (1, 7))


@pytest.mark.filterwarnings("ignore")  # of the exporters, about themselves
@pytest.mark.parametrize(
    "build",
    [squeezenet, lambda: timm_model("test_vit"), lambda: timm_model("test_convnext"), llama],
    ids=["squeezenet", "vit", "convnext", "llama"],
)
def test_a_smaller_model_computes_the_same_as_a_file(build, tmp_path):
    model, example = build()
    small = copy.deepcopy(model).eval()
    structure = secateur.trace(small, example)
    units = {n: torch.arange(0, f.num_units - 1, 2) for n, f in enumerate(structure.families)}
    decision = Decision(units=units, layers=tuple(range(0, structure.num_layers, 2)))
    cut_(small, structure, structure.everything(), decision)
    with torch.no_grad():
        expected = small(example)
    program = torch.export.load(secateur.export(small, example, tmp_path / "small.pt2", to="pt2"))
    assert_close(program.module()(example), expected, rtol=0.0, atol=1e-4)
    file = secateur.export(small, example, tmp_path / "small.onnx")
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: example.numpy()})
    assert_close(torch.from_numpy(found), expected, rtol=0.0, atol=1e-4)
