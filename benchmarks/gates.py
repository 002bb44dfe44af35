"""What attached gates cost a training step: ResNet-20, batch 128, against the plain step.

    python benchmarks/gates.py [--steps N] [--rounds N]

Loops on copies of one network take turns step by step, so that a drifting machine drifts for all:
plain, plain once more (what differs between these two is noise), attached with nothing sampled yet
(warm-up), attached while gates are sampled. Where a copy happens to lie in memory counts for more
than the hooks do, so every round makes new copies; the ratio is the median over all pairs of steps.
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
LOOPS = ("plain", "plain again", "nothing sampled", "sampling")


def loop_of(name: str, network: torch.nn.Module) -> Callable[[], float]:
    """Return the step of one loop on a copy of the network, warmed up."""
    model = copy.deepcopy(network)
    device = next(model.parameters()).device
    # A learning rate of almost nothing keeps worths, and with them the draws, where they are.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6, momentum=0.9)
    if not name.startswith("plain"):
        warmup = WARMUP if name == "sampling" else 10**6
        method = secateur.ComplexityAware(price=0.3, warmup=warmup, patience=2000)
        example = torch.randn(2, 3, 32, 32, device=device)
        secateur.attach(model, optimizer, example, method=method, total_steps=4 * 10**6)
    step = step_of(model, optimizer)
    for _ in range(WARMUP + 5 if name == "sampling" else 5):
        step()
    return step


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
    parser.add_argument("--steps", type=int, default=25, help="counted steps a loop and round")
    parser.add_argument("--rounds", type=int, default=6, help="rounds, each with new copies")
    options = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = models.build("resnet20", 10, 3, 32).to(device)
    seconds: dict[str, list[float]] = {name: [] for name in LOOPS}
    for turn in range(options.rounds):
        names = [*LOOPS[turn % len(LOOPS) :], *LOOPS[: turn % len(LOOPS)]]
        loops = {name: loop_of(name, network) for name in names}
        for _ in range(options.steps):
            for name, step in loops.items():
                seconds[name].append(step())
    table = Table("loop", "median step ms", "ratio to plain", "target")
    for name, target in zip(LOOPS, ("", "", "<= 1.02", "<= 1.05"), strict=True):
        ratios = [a / b for a, b in zip(seconds[name], seconds["plain"], strict=True)]
        table.add_row(
            name,
            f"{1000 * statistics.median(seconds[name]):.1f}",
            f"{statistics.median(ratios):.3f}",
            target,
        )
    console = Console()
    console.print(table)
    counted = options.steps * options.rounds
    console.print(f"{counted} steps each, batch {BATCH}; {describe()}")


if __name__ == "__main__":
    main()
