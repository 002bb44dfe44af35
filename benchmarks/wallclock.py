"""Seconds of a whole training with structure search against dense training of the same epochs.

    python benchmarks/wallclock.py [--epochs N] [--price NU] [--settle-at SHARE] [--size PIXELS]

Both loops run in one process and take turns step by step, so that a busy machine is busy for both.
A step is everything between two batches: forward, backward, gates, measurements, the update, and
whatever is removed, with its proof. ResNet-20 on CIFAR-10 (JPEG) at 16 x 16 pixels, batch 128.
"""

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from _machine import describe
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

import secateur
from secateur import data, models
from secateur.data import Batches

DATA = Path(__file__).parents[2] / "shared" / "data" / "cifar10-jpeg.npz"
BATCH, PEAK = 128, 0.1


@dataclass
class Loop:
    """One training: its model, its data, and the seconds of its steps."""

    model: nn.Module
    batches: Batches
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    seconds: list[float] = field(default_factory=list)

    def epoch(self) -> Iterator[None]:
        """Train for an epoch, a step at a time."""
        for images, labels in self.batches:
            self.model.train()
            _wait(images)
            start = time.perf_counter()
            F.cross_entropy(self.model(images), labels, label_smoothing=0.1).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            _wait(images)
            self.seconds.append(time.perf_counter() - start)
            self.scheduler.step()
            yield


def loop_on(dataset: data.Dataset, options: argparse.Namespace) -> Loop:
    """Build a network and its training, the same every time."""
    torch.manual_seed(options.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = models.build("resnet20", 10, 3, options.size).to(device)
    generator = torch.Generator().manual_seed(options.seed)
    batches = Batches(
        dataset, "train", BATCH, augment=dataset.augment, generator=generator, drop_last=True,
        device=device,
    )  # fmt: skip
    optimizer = torch.optim.SGD(
        model.parameters(), lr=PEAK, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    total = options.epochs * len(batches)

    def factor(step: int) -> float:
        return min((step + 1) / len(batches), (1 + math.cos(math.pi * step / total)) / 2)

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return Loop(model, batches, optimizer, scheduler)


@torch.no_grad()
def accuracy(model: nn.Module, batches: Batches) -> float:
    """Return the share of right answers."""
    model.eval()
    right = [(model(images).argmax(1) == labels).float() for images, labels in batches]
    return float(torch.cat(right).mean())


def _wait(tensor: Tensor) -> None:
    if tensor.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    """Train both and print what each quarter of the training took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--price", type=float, default=0.5, help="nats per 100 %% of the MACs")
    parser.add_argument("--settle-at", type=float, default=0.5, help="end of the search")
    parser.add_argument("--size", type=int, default=16, help="pixels a side")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, default=DATA, help="the .npz of JPEG files")
    options = parser.parse_args()
    dataset = data.load("cifar10-jpeg", options.data, size=options.size)
    dense, found = loop_on(dataset, options), loop_on(dataset, options)
    steps = len(found.batches)
    method = secateur.ComplexityAware(price=options.price, settle_at=options.settle_at)
    example = next(iter(Batches(dataset, "test", 1)))[0].to(next(found.model.parameters()).device)
    macs = secateur.trace(found.model, example).cost.macs.value()
    secateur.attach(
        found.model, found.optimizer, example, method=method, total_steps=options.epochs * steps,
        steps_per_epoch=steps, seed=options.seed,
    )  # fmt: skip
    for _ in track(range(options.epochs), "epochs", transient=True):
        for _ in zip(dense.epoch(), found.epoch(), strict=True):
            pass
    report(dense, found, secateur.trace(found.model, example).cost.macs.value() / macs)
    device = next(found.model.parameters()).device
    test = Batches(dataset, "test", 500, device=device)
    Console(width=110).print(
        f"accuracy on the test split: dense {accuracy(dense.model, test):.2%}, found "
        f"{accuracy(found.model, test):.2%}; {options.epochs} epochs, price {options.price}, "
        f"settle at {options.settle_at}, {options.size} x {options.size} pixels; {describe()}"
    )


def report(dense: Loop, found: Loop, macs: float) -> None:
    """Print seconds by quarters of the training."""
    table = Table("part of the training", "dense s", "with search s", "ratio", "MACs at the end")
    count = len(dense.seconds)
    parts = [(n * count // 4, (n + 1) * count // 4) for n in range(4)]
    for number, (start, stop) in enumerate([*parts, (0, count)]):
        plain, ours = sum(dense.seconds[start:stop]), sum(found.seconds[start:stop])
        name = f"quarter {number + 1}" if number < 4 else "all"
        end = f"{macs:.1%}" if stop == count else ""
        table.add_row(name, f"{plain:.1f}", f"{ours:.1f}", f"{ours / plain:.2f}", end)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
