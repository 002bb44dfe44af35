"""Shrunk models in other runtimes: 20 architectures through torch.export, ONNX and onnxruntime.

    python benchmarks/exporting.py [--models NAME ...] [--repeat N]

From each untrained model a random half of the units of every family and every second removable
layer are taken. What is left is written by `secateur.export` as an exported program and as ONNX;
both files are loaded again, and their outputs compared with the model's. Sizes are of the ONNX
files; latencies are onnxruntime's at batch 1 on one thread, the whole model and the smaller one
taking turns.
"""

import argparse
import copy
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _machine import describe
from _random_units import random_part
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import secateur
from secateur.surgery import cut_
from secateur.surgery._randomise import randomise_


class Logits(nn.Module):
    """A transformers model that takes and returns tensors; their own outputs are no plain data."""

    def __init__(self, model: nn.Module, name: str = "logits") -> None:
        super().__init__()
        self.model, self.name = model, name

    def forward(self, inputs: Tensor) -> Tensor:
        return self.model(inputs, return_dict=True)[self.name]


def vision(name: str) -> Callable[[], tuple[nn.Module, Tensor]]:
    def build() -> tuple[nn.Module, Tensor]:
        import torchvision

        return torchvision.models.get_model(name, weights=None), torch.randn(1, 3, 224, 224)

    return build


def timm_model(name: str, size: int = 224) -> Callable[[], tuple[nn.Module, Tensor]]:
    def build() -> tuple[nn.Module, Tensor]:
        import timm

        return timm.create_model(name), torch.randn(1, 3, size, size)

    return build


def text(kind: str, output: str = "logits", **sizes: Any) -> Callable[[], tuple[nn.Module, Tensor]]:
    def build() -> tuple[nn.Module, Tensor]:
        import transformers

        config = getattr(transformers, f"{kind.partition('For')[0].partition('LMHead')[0]}Config")
        settings = config(vocab_size=1000, **sizes)
        for name, value in (("use_cache", False), ("return_dict", True)):
            setattr(settings, name, value)
        return Logits(getattr(transformers, kind)(settings), output), torch.randint(
            5, 1000, (1, 32)
        )

    return build


_TEXT = {"hidden_size": 128, "num_hidden_layers": 2, "intermediate_size": 256}
MODELS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "torchvision/resnet18": vision("resnet18"),
    "torchvision/mobilenet_v3_small": vision("mobilenet_v3_small"),
    "torchvision/efficientnet_b0": vision("efficientnet_b0"),
    "torchvision/densenet121": vision("densenet121"),
    "torchvision/shufflenet_v2_x0_5": vision("shufflenet_v2_x0_5"),
    "torchvision/regnet_y_400mf": vision("regnet_y_400mf"),
    "torchvision/googlenet": vision("googlenet"),
    "torchvision/convnext_tiny": vision("convnext_tiny"),
    "torchvision/vit_b_16": vision("vit_b_16"),
    "torchvision/swin_t": vision("swin_t"),
    "timm/deit_tiny_patch16_224": timm_model("deit_tiny_patch16_224"),
    "timm/levit_128s": timm_model("levit_128s"),
    "timm/maxvit_rmlp_pico_rw_256": timm_model("maxvit_rmlp_pico_rw_256", 256),
    "timm/mobilevit_xxs": timm_model("mobilevit_xxs", 256),
    "timm/pvt_v2_b0": timm_model("pvt_v2_b0"),
    "timm/mixer_s32_224": timm_model("mixer_s32_224"),
    "transformers/bert": text("BertForSequenceClassification", num_attention_heads=4, **_TEXT),
    "transformers/gpt2": text("GPT2LMHeadModel", n_embd=128, n_layer=2, n_head=4),
    "transformers/llama": text(
        "LlamaForCausalLM", num_attention_heads=4, num_key_value_heads=2, **_TEXT
    ),
    "transformers/distilbert": text(
        "DistilBertForSequenceClassification", dim=128, n_layers=2, n_heads=4, hidden_dim=256
    ),
}


@dataclass(frozen=True)
class Row:
    """What became of one model."""

    exported: str
    difference: float | None = None
    megabytes: tuple[float, float] | None = None
    milliseconds: tuple[float, float] | None = None


def difference(model: nn.Module, example: Tensor, found: list[Tensor]) -> float:
    """Return the largest difference as a part of the largest output."""
    with torch.no_grad():
        expected = [leaf for leaf in tree_leaves(model(example)) if isinstance(leaf, Tensor)]
    assert [t.shape for t in expected] == [t.shape for t in found]
    pairs = zip(expected, found, strict=True)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs)


def session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])


def feed(runtime: Any, example: Tensor) -> dict[str, Any]:
    return {runtime.get_inputs()[0].name: example.numpy()}


def latencies(runtimes: list[Any], example: Tensor, repeat: int) -> list[float]:
    """Return the median milliseconds of each; they take turns, so that a drift meets all."""
    seconds: list[list[float]] = [[] for _ in runtimes]
    for _ in range(repeat + 1):
        for own, runtime in zip(seconds, runtimes, strict=True):
            start = time.perf_counter()
            runtime.run(None, feed(runtime, example))
            own.append(time.perf_counter() - start)
    return [1e3 * statistics.median(own[1:]) for own in seconds]


def measure(build: Callable[[], tuple[nn.Module, Tensor]], repeat: int) -> Row:
    """Shrink, export, load and compare one model."""
    torch.manual_seed(0)
    model, example = build()
    randomise_(model, torch.Generator().manual_seed(0))  # heads of zeros would hide differences
    model.eval()
    small = copy.deepcopy(model)
    structure = secateur.trace(small, example)
    cut_(small, structure, structure.everything(), random_part(structure, 0.5))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = secateur.export(small, example, folder / "small.pt2", to="pt2")
        files = [
            secateur.export(which, example, folder / f"{name}.onnx")
            for name, which in (("whole", model), ("small", small))
        ]
        loaded = torch.export.load(program).module()
        with torch.no_grad():
            outputs = [t for t in tree_leaves(loaded(example)) if isinstance(t, Tensor)]
        worst = difference(small, example, outputs)
        runtimes = [session(path) for path in files]
        found = [torch.as_tensor(a) for a in runtimes[1].run(None, feed(runtimes[1], example))]
        worst = max(worst, difference(small, example, found))
        sizes = [path.stat().st_size / 1e6 for path in files]
        before, after = latencies(runtimes, example, repeat)
    return Row("both", worst, (sizes[0], sizes[1]), (before, after))


def main() -> int:
    """Export every model and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=[*MODELS], default=[*MODELS], metavar="NAME")
    parser.add_argument("--repeat", type=int, default=15, help="counted runs of each (median)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    table = Table("model", "exported", "max difference", "MB", "", "onnxruntime ms", "")
    wrong = 0
    for name in options.models:
        try:
            row = measure(MODELS[name], options.repeat)
        except (secateur.SecateurError, AssertionError) as error:
            wrong += 1
            row = Row(f"no: {type(error).__name__}: {str(error)[:300]}")
        table.add_row(name, row.exported, *cells(row))
        Console(stderr=True).print(name, row.exported, *cells(row), markup=False)
    console = Console()
    console.print(table)
    console.print(f"{len(options.models) - wrong} of {len(options.models)} exported and agree")
    console.print(describe(("torch", "torchvision", "timm", "transformers", "onnx", "onnxruntime")))
    return int(wrong > 0)


def cells(row: Row) -> list[str]:
    """Write the figures of a row."""
    if row.difference is None or row.megabytes is None or row.milliseconds is None:
        return [""] * 5
    pairs = [f"{value:.1f}" for value in (*row.megabytes, *row.milliseconds)]
    return [f"{row.difference:.1e}", *pairs]


if __name__ == "__main__":
    sys.exit(main())
