"""Seconds and memory of trace, removal and proof check over depth and width of three kinds of nets.

    python benchmarks/scaling.py [--svg docs/images/scaling.svg]

A Llama of transformers, a ViT and a ResNet of torchvision are built on the meta device: no weights
are allocated.
Every size runs in a process of its own, so that its peak memory can be read. Memory is what the
process came to hold beyond what it held once the model was built. Seconds are of processor time of
one thread, the smaller of two traces, so that other work on the machine shows less.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from _machine import describe
from rich.console import Console
from rich.table import Table
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.models.vision_transformer import VisionTransformer

import secateur
from secateur.structure import Decision, Structure, prove
from secateur.surgery import cut_

PHASES = ("trace", "cut", "proof")
COLOURS = ("#2a6f97", "#e07a5f", "#3d8361")
Row = dict[str, float]


def llama(depth: int, width: int) -> nn.Module:
    """Build a Llama; with 32 layers of width 4096 it is of the 7B class."""
    config = transformers.LlamaConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        intermediate_size=width * 43 // 16,
        num_attention_heads=32,
        num_key_value_heads=8,
        use_cache=False,
    )
    return transformers.LlamaForCausalLM(config)


def vit(depth: int, width: int) -> nn.Module:
    """Build a ViT of some layers."""
    return VisionTransformer(
        image_size=64,
        patch_size=16,
        num_layers=depth,
        num_heads=16,
        hidden_dim=width,
        mlp_dim=4 * width,
    )


def resnet(depth: int, width: int) -> nn.Module:
    """Build a ResNet of some bottlenecks, which are as wide as said in the first of four stages."""
    return ResNet(Bottleneck, [depth // 4] * 4, width_per_group=width)


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of network, and the sizes it is measured at.

    Attributes:
        build: Called with depth and width.
        example: What the network is called with.
        depths: Depths, at the last width.
        widths: Widths, at the middle depth.
    """

    build: Callable[[int, int], nn.Module]
    example: Any
    depths: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def base(self) -> tuple[int, int]:
        """Depth where the width varies, and width where the depth does."""
        return self.depths[2], self.widths[-1]


_TOKENS = torch.zeros(1, 64, dtype=torch.long)
KINDS: Mapping[str, Kind] = {
    "Llama": Kind(
        llama,
        {"input_ids": _TOKENS, "attention_mask": torch.ones_like(_TOKENS)},
        (4, 8, 16, 32, 64),
        (256, 512, 1024, 2048, 4096),
    ),
    "ViT": Kind(vit, torch.zeros(1, 3, 64, 64), (6, 12, 24, 48, 96), (128, 256, 512, 1024, 2048)),
    "ResNet": Kind(resnet, torch.zeros(1, 3, 64, 64), (8, 16, 32, 64, 128), (16, 32, 64, 128, 256)),
}


def measure(name: str, depth: int, width: int) -> Row:
    """Trace, remove a third of everything and half of the layers, and prove."""
    torch.set_num_threads(1)
    kind = KINDS[name]
    with torch.device("meta"):
        model = kind.build(depth, width).eval()
    example = kind.example
    before = _peak_mib()
    first = time.process_time()
    secateur.trace(model, example)
    times = [time.process_time()]
    structure = secateur.trace(model, example)
    times.append(time.process_time())
    decision = third(structure)
    live, _ = cut_(model, structure, structure.everything(), decision, proof=False)
    times.append(time.process_time())
    prove(model, structure, live)
    times.append(time.process_time())
    seconds = {name: times[i + 1] - times[i] for i, name in enumerate(PHASES)}
    seconds["trace"] = min(seconds["trace"], times[0] - first)
    units = float(structure.num_units)
    return seconds | {"MiB": _peak_mib() - before, "units": units}


def third(structure: Structure) -> Decision:
    """Choose the first third of every family, and every second layer."""
    units = {
        number: torch.arange(family.num_units // 3)
        for number, family in enumerate(structure.families)
    }
    return Decision(units=units, layers=tuple(range(0, structure.num_layers, 2)))


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def apart(name: str, depth: int, width: int) -> Row:
    """Measure one size in a process of its own."""
    command = [sys.executable, __file__, "--one", name, str(depth), str(width)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: Row = json.loads(done.stdout.splitlines()[-1])
    return result


def plot(found: Mapping[str, Mapping[tuple[int, int], Row]]) -> str:
    """Draw seconds over depth and over width as an SVG picture, one line of panels a kind."""
    panels = []
    for number, (name, rows) in enumerate(found.items()):
        kind, top = KINDS[name], 270 * number
        depth, width = kind.base
        by_depth = {d: rows[d, width] for d in kind.depths}
        by_width = {w: rows[depth, w] for w in kind.widths}
        panels.append(_panel(0, top, f"{name}: layers, at width {width}", by_depth))
        panels.append(_panel(360, top, f"{name}: width, at {depth} layers", by_width))
    keys = [
        f'<text x="{300 + 60 * i}" y="18" fill="{colour}">{name}</text>'
        for i, (name, colour) in enumerate(zip(PHASES, COLOURS, strict=True))
    ]
    height = 270 * len(found) + 30
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" font-size="12" '
        f'font-family="sans-serif"><rect width="720" height="{height}" fill="white"/>'
        + "".join([*keys, *panels])
        + "</svg>\n"
    )


def _panel(left: int, top: int, title: str, rows: dict[int, Row]) -> str:
    longest, most = max(rows), max(max(row[p] for p in PHASES) for row in rows.values())
    parts = [
        f'<path d="M{left + 50} {top + 40}v210h290" fill="none" stroke="#888"/>',
        f'<text x="{left + 195}" y="{top + 288}" text-anchor="middle">{title}</text>',
        f'<text x="{left + 45}" y="{top + 48}" text-anchor="end">{most:.2f} s</text>',
        f'<text x="{left + 45}" y="{top + 254}" text-anchor="end">0</text>',
    ]
    for size in rows:
        x = left + 50 + 280 * size / longest
        parts.append(f'<text x="{x:.0f}" y="{top + 268}" text-anchor="middle">{size}</text>')
    for phase, colour in zip(PHASES, COLOURS, strict=True):
        points = " ".join(
            f"{left + 50 + 280 * size / longest:.1f},{top + 250 - 200 * row[phase] / most:.1f}"
            for size, row in rows.items()
        )
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    return "".join(parts)


def main() -> None:
    """Measure all sizes, print a table, and draw it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--svg", type=Path, help="where to draw the figures")
    parser.add_argument("--one", nargs=3, metavar=("KIND", "DEPTH", "WIDTH"), help="measure one")
    arguments = parser.parse_args()
    if arguments.one:
        name, depth, width = arguments.one
        sys.stdout.write(json.dumps(measure(name, int(depth), int(width))) + "\n")
        return
    table = Table("kind", "layers", "width", "trace s", "cut s", "proof s", "memory MiB", "units")
    found: dict[str, dict[tuple[int, int], Row]] = {}
    for name, kind in KINDS.items():
        sizes = [(d, kind.base[1]) for d in kind.depths] + [(kind.base[0], w) for w in kind.widths]
        found[name] = {size: apart(name, *size) for size in dict.fromkeys(sizes)}
        for size, row in found[name].items():
            seconds = [f"{row[phase]:.2f}" for phase in PHASES]
            rest = f"{row['MiB']:.0f}", f"{row['units']:,.0f}"
            table.add_row(name, *map(str, size), *seconds, *rest)
    console = Console()
    console.print(table)
    console.print(describe(("torch", "torchvision", "transformers")))
    if arguments.svg:
        arguments.svg.write_text(plot(found))


if __name__ == "__main__":
    main()
