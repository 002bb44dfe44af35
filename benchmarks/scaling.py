"""Seconds and memory of trace, removal and proof check over depth and width of a Llama.

    python benchmarks/scaling.py [--svg docs/images/scaling.svg]

The models are built from a config of transformers on the meta device: no weights are allocated.
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
from pathlib import Path

import torch
import transformers
from _machine import describe
from rich.console import Console
from rich.table import Table

import secateur
from secateur.structure import Decision, Structure, prove
from secateur.surgery import cut_

DEPTHS, WIDTHS = (4, 8, 16, 32, 64), (256, 512, 1024, 2048, 4096)
BASE_DEPTH, BASE_WIDTH = 16, 4096
PHASES = ("trace", "cut", "proof")
COLOURS = ("#2a6f97", "#e07a5f", "#3d8361")


def build(depth: int, width: int) -> torch.nn.Module:
    """Build a Llama without weights; with 32 layers of width 4096 it is of the 7B class."""
    config = transformers.LlamaConfig(
        hidden_size=width,
        num_hidden_layers=depth,
        intermediate_size=width * 43 // 16,
        num_attention_heads=32,
        num_key_value_heads=8,
        use_cache=False,
    )
    with torch.device("meta"):
        return transformers.LlamaForCausalLM(config).eval()


def measure(depth: int, width: int) -> dict[str, float]:
    """Trace, remove a third of everything and half of the layers, and prove."""
    torch.set_num_threads(1)
    model = build(depth, width)
    tokens = torch.zeros(1, 64, dtype=torch.long)
    example = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
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


def apart(depth: int, width: int) -> dict[str, float]:
    """Measure one size in a process of its own."""
    command = [sys.executable, __file__, "--one", str(depth), str(width)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def plot(by_depth: dict[int, dict[str, float]], by_width: dict[int, dict[str, float]]) -> str:
    """Draw seconds over depth and over width as an SVG picture."""
    panels = [
        _panel(0, f"layers, at width {BASE_WIDTH}", by_depth),
        _panel(360, f"width, at {BASE_DEPTH} layers", by_width),
    ]
    keys = [
        f'<text x="{300 + 60 * i}" y="18" fill="{colour}">{name}</text>'
        for i, (name, colour) in enumerate(zip(PHASES, COLOURS, strict=True))
    ]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 300" font-size="12" '
        'font-family="sans-serif"><rect width="720" height="300" fill="white"/>'
        + "".join([*keys, *panels])
        + "</svg>\n"
    )


def _panel(left: int, title: str, rows: dict[int, dict[str, float]]) -> str:
    longest, most = max(rows), max(max(row[p] for p in PHASES) for row in rows.values())
    parts = [
        f'<path d="M{left + 50} 40V250H{left + 340}" fill="none" stroke="#888"/>',
        f'<text x="{left + 195}" y="288" text-anchor="middle">{title}</text>',
        f'<text x="{left + 45}" y="48" text-anchor="end">{most:.2f} s</text>',
        f'<text x="{left + 45}" y="254" text-anchor="end">0</text>',
    ]
    for size in rows:
        x = left + 50 + 280 * size / longest
        parts.append(f'<text x="{x:.0f}" y="268" text-anchor="middle">{size}</text>')
    for phase, colour in zip(PHASES, COLOURS, strict=True):
        points = " ".join(
            f"{left + 50 + 280 * size / longest:.1f},{250 - 200 * row[phase] / most:.1f}"
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
    parser.add_argument("--one", type=int, nargs=2, metavar=("DEPTH", "WIDTH"), help="measure one")
    arguments = parser.parse_args()
    if arguments.one:
        sys.stdout.write(json.dumps(measure(*arguments.one)) + "\n")
        return
    sizes = [(d, BASE_WIDTH) for d in DEPTHS] + [(BASE_DEPTH, w) for w in WIDTHS]
    rows = {size: apart(*size) for size in dict.fromkeys(sizes)}
    table = Table("layers", "width", "trace s", "cut s", "proof s", "memory MiB", "units")
    for (depth, width), row in rows.items():
        seconds = [f"{row[phase]:.2f}" for phase in PHASES]
        table.add_row(str(depth), str(width), *seconds, f"{row['MiB']:.0f}", f"{row['units']:,.0f}")
    console = Console()
    console.print(table)
    console.print(describe(("torch", "transformers")))
    if arguments.svg:
        by_depth = {d: rows[d, BASE_WIDTH] for d in DEPTHS}
        by_width = {w: rows[BASE_DEPTH, w] for w in WIDTHS}
        arguments.svg.write_text(plot(by_depth, by_width))


if __name__ == "__main__":
    main()
