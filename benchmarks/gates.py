"""What attached gates cost a training step: ResNet-20, batch 128, against the plain step.

    python benchmarks/gates.py [--steps N]

Three loops on copies of one network take turns step by step, so that a drifting machine drifts for
all: plain, attached with nothing sampled yet (warm-up), attached while gates are sampled. Medians
of the steps and of the ratios pair by pair.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from _machine import describe
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

import secateur
from secateur import models

BATCH = 128
WARMUP = 20


def step_of(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], float]:
    """Return a function that takes one training step and says how long it took."""
    device = next(model.parameters()).device
    images = torch.randn(BATCH, 3, 32, 32, device=device)
    labels = torch.randint(0, 10, (BATCH,), device=device)

    def step() -> float:
        _wait(device)
        start = time.perf_counter()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        _wait(device)
        return time.perf_counter() - start

    return step


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Run the loops and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60, help="counted steps of each loop")
    steps = parser.parse_args().steps
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = models.build("resnet20", 10, 3, 32).to(device)
    example = torch.randn(2, 3, 32, 32, device=device)
    loops = {}
    for name, warmup in (("plain", None), ("nothing sampled", 10**6), ("sampling", WARMUP)):
        model = copy.deepcopy(network)
        # A learning rate of almost nothing keeps worths, and with them the draws, where they are.
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
        if warmup is not None:
            method = secateur.ComplexityAware(price=0.3, warmup=warmup, patience=2000)
            secateur.attach(model, optimizer, example, method=method, total_steps=4 * 10**6)
        loops[name] = step_of(model, optimizer)
    for _ in range(3 * WARMUP):
        loops["sampling"]()
    for step in loops.values():
        step()
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(steps):
        for name, step in loops.items():
            seconds[name].append(step())
    table = Table("loop", "median step ms", "ratio to plain", "target")
    for name, target in (("plain", ""), ("nothing sampled", "<= 1.02"), ("sampling", "<= 1.05")):
        ratios = [a / b for a, b in zip(seconds[name], seconds["plain"], strict=True)]
        table.add_row(
            name,
            f"{1000 * statistics.median(seconds[name]):.1f}",
            f"{statistics.median(ratios):.3f}",
            target,
        )
    console = Console()
    console.print(table)
    console.print(f"{steps} steps each, batch {BATCH}; {describe()}")


if __name__ == "__main__":
    main()
