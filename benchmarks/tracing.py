"""Trace and first removal, against Torch-Pruning's construction and first step, in one process.

    python benchmarks/tracing.py [--repeat N]

Both remove about a tenth of the units, chosen at random, from the same untrained torchvision models
on one thread. Secateur's time leaves the proof check out (it is shown beside); Torch-Pruning has
none. Both run with their defaults: the work is alike, not equal, since each finds other groups.
"""

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable

import torch
import torch_pruning
import torchvision
from _machine import describe
from _random_units import random_units
from rich.console import Console
from rich.table import Table
from torch import nn

import secateur
from secateur.structure import Decision, prove
from secateur.surgery import cut_

MODELS = {
    "resnet50": 0.4,
    "mobilenet_v3_small": 1.0,
    "vit_b_16": 0.3,
    "densenet121": 0.1,
}
SHARE = 0.1


def ours(model: nn.Module, example: torch.Tensor) -> tuple[float, float]:
    """Return seconds for trace and removal, and for the proof check."""
    start = time.perf_counter()
    structure = secateur.trace(model, example)
    decision = Decision(units=random_units(structure, SHARE))
    live, _ = cut_(model, structure, structure.everything(), decision, proof=False)
    middle = time.perf_counter()
    prove(model, structure, live)
    return middle - start, time.perf_counter() - middle


def theirs(model: nn.Module, example: torch.Tensor) -> float:
    """Return seconds for building the pruner and one step."""
    start = time.perf_counter()
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        example,
        importance=torch_pruning.importance.RandomImportance(),
        pruning_ratio=SHARE,
        ignored_layers=[last],
    )
    pruner.step()
    return time.perf_counter() - start


def median_of(repeat: int, run: Callable[[], tuple[float, ...]]) -> tuple[float, ...]:
    """Return the median of each figure over some runs, after one that does not count."""
    run()
    columns = zip(*(run() for _ in range(repeat)), strict=True)
    return tuple(statistics.median(column) for column in columns)


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeat", type=int, default=5, help="counted runs of each (median)")
    repeat = parser.parse_args().repeat
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    table = Table(
        "model", "trace + removal s", "proof s", "Torch-Pruning s", "ratio", "target", "units"
    )
    example = torch.randn(1, 3, 224, 224)
    for name, target in MODELS.items():
        model = torchvision.models.get_model(name, weights=None).eval()
        units = secateur.trace(model, example).num_units
        mine, proof = median_of(repeat, lambda m=model: ours(copy.deepcopy(m), example))
        (other,) = median_of(repeat, lambda m=model: (theirs(copy.deepcopy(m), example),))
        table.add_row(
            name,
            f"{mine:.3f}",
            f"{proof:.3f}",
            f"{other:.3f}",
            f"{mine / other:.2f}",
            f"<= {target}",
            f"{units:,}",
        )
    console = Console()
    console.print(table)
    console.print(describe(("torch", "torchvision", "torch-pruning")))


if __name__ == "__main__":
    main()
