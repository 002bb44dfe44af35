"""What AOFP's masks find, and what they cost: half by half, against many masks and one a batch.

    python benchmarks/aofp.py [--limit N] [--rounds N] [--epochs N] [--width W] [--steps N]

Agreement: the half of each family that would be chosen, compared with the half chosen after many
more masks (the limit), on one trained network whose weights are held. Compared are the plain mean
over one mask a batch, as in the published code and with its 1000 batches; the plain mean over one
mask a sample; and what `secateur.AOFP` does: pairs of disjoint halves on each sample and a fitted
line, or inner products where there are any. Half of the units agree by chance.

Time: one training step, and the same step with each kind of measurement, taking turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from _machine import describe
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from secateur import AOFP, models, trace
from secateur.gates import Ablation, Damage, DamageMeter
from secateur.methods._aofp_search import GRAM_STEPS, MASK_ROWS, PAIRS
from secateur.methods._halving import draw_halves, exact_damage, fitted_damage

BATCH = 128
PUBLIC_BATCHES = 1000


@dataclass
class Bench:
    """A trained network whose weights are held, and its meter."""

    model: torch.nn.Module
    images: Tensor
    labels: Tensor
    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def __post_init__(self) -> None:
        self.structure = trace(self.model, self.images[:1])
        self.meter = DamageMeter(self.model, self.structure, self.structure.everything())
        self.families = range(len(self.structure.families))

    def batch(self) -> tuple[Tensor, Tensor]:
        """Draw a batch."""
        chosen = torch.randint(len(self.images), (BATCH,), generator=self.generator)
        return self.images[chosen], self.labels[chosen]

    def masks(self, rows: int) -> Tensor:
        """Draw pairs of halves for every family, ``[V, rows, U]``."""
        sizes = [family.num_units for family in self.structure.families]
        halves = [
            [half for _ in range(PAIRS) for half in draw_halves(size, rows, self.generator)]
            for size in sizes
        ]
        return torch.cat([torch.stack(variants) for variants in halves], dim=2)

    def measure(self, ablation: Ablation, images: Tensor) -> Damage:
        """Measure on one batch, and put the buffers back."""
        kept = [buffer.clone() for buffer in self.model.buffers()]
        damage = self.meter.measure(ablation, lambda: self.model(images), len(images))
        for buffer, value in zip(self.model.buffers(), kept, strict=True):
            buffer.copy_(value)
        return damage


class Sums:
    """Sums over masks of every family, as the search keeps them."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        sizes = [family.num_units for family in bench.structure.families]
        self.moments = [torch.zeros(n, n, dtype=torch.float64) for n in sizes]
        self.crosses = [torch.zeros(n, dtype=torch.float64) for n in sizes]

    def take(self, off_VRU: Tensor, damage: Damage) -> None:
        """Take in one measurement."""
        for family in self.bench.families:
            start, stop = self.bench.structure.offsets[family : family + 2]
            for off_RU, change_RF in zip(off_VRU, damage.change_VRF, strict=True):
                rows = off_RU[:, start:stop].double()
                self.moments[family] += rows.t() @ rows
                self.crosses[family] += rows.t() @ (
                    change_RF[:, family] / damage.energy_RF[:, family]
                )

    def halves(self, *, fitted: bool) -> list[set[int]]:
        """Return the half with the smallest mean damage of every family."""
        return [
            half_of(fitted_damage(m, c) if fitted else c / m.diagonal())
            for m, c in zip(self.moments, self.crosses, strict=True)
        ]


def half_of(damage: Tensor) -> set[int]:
    """Return the half of the units with the smallest damage."""
    return set(damage.argsort(stable=True)[: len(damage) // 2].tolist())


def sampled(bench: Bench, num_masks: int, *, rows: int, paired: bool) -> Sums:
    """Measure a number of masks, so many a batch, with or without a second one a sample."""
    sums = Sums(bench)
    each = rows * (2 * PAIRS if paired else 1)
    for _ in range(-(-num_masks // each)):
        off_VRU = bench.masks(rows)[: None if paired else 1]
        ablation = Ablation(off_VRU=off_VRU, sampled=frozenset(bench.families))
        sums.take(off_VRU, bench.measure(ablation, bench.batch()[0]))
    return sums


def quadratic_families(bench: Bench) -> frozenset[int]:
    """Find the families whose inner products can be had."""
    ablation = Ablation(off_VRU=bench.masks(1), sampled=frozenset(bench.families))
    return bench.measure(ablation, bench.batch()[0]).quadratic


def exact(bench: Bench, families: frozenset[int], num_batches: int) -> dict[int, set[int]]:
    """Return the halves that inner products choose."""
    grams: dict[int, Tensor] = {}
    energies: dict[int, Tensor] = {}
    ablation = Ablation(off_VRU=bench.masks(1), exact=families)
    for _ in range(num_batches):
        damage = bench.measure(ablation, bench.batch()[0])
        for family in families:
            grams[family] = grams.get(family, 0) + damage.grams[family]
            energies[family] = energies.get(family, 0) + damage.gram_energy[family]
    return {family: half_of(exact_damage(grams[family] / energies[family])) for family in families}


def trained(width: float, epochs: int) -> Bench:
    """Train the network for 8x8 digits for a while."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    labels = torch.tensor(digits.target)
    torch.manual_seed(0)
    bench = Bench(models.build("digits-resnet", 10, 1, 8, width=width), images, labels)
    step = step_of(bench, learning_rate=0.05)
    for _ in range(epochs * (len(images) // BATCH)):
        step(None)
    return bench


def step_of(bench: Bench, learning_rate: float) -> Callable[[Ablation | None], float]:
    """Return one training step, with a measurement if asked, that says how long it took."""
    optimizer = torch.optim.SGD(
        bench.model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=1e-4
    )

    def step(ablation: Ablation | None) -> float:
        images, labels = bench.batch()
        start = time.perf_counter()
        if ablation is not None:
            bench.measure(ablation, images)
        optimizer.zero_grad()
        F.cross_entropy(bench.model(images), labels).backward()
        optimizer.step()
        return time.perf_counter() - start

    return step


def agreement(bench: Bench, limit_masks: int, rounds: int, console: Console) -> None:
    """Print how much of the limit's half every way of choosing finds."""
    default = AOFP().masks_per_half
    families = quadratic_families(bench)
    limit = sampled(bench, limit_masks, rows=MASK_ROWS, paired=True).halves(fitted=True)
    # Where inner products can be had, their limit needs no masks.
    limit_batches = max(4 * GRAM_STEPS, limit_masks // (2 * PAIRS * MASK_ROWS))
    for family, half in exact(bench, families, limit_batches).items():
        limit[family] = half
    shares: dict[str, list[list[float]]] = {}
    for _ in track(range(rounds), description="agreement", console=console, transient=True):
        public = sampled(bench, PUBLIC_BATCHES, rows=1, paired=False).halves(fitted=False)
        plain = sampled(bench, default, rows=MASK_ROWS, paired=False).halves(fitted=False)
        fitted = sampled(bench, default, rows=MASK_ROWS, paired=True).halves(fitted=True)
        ours = list(fitted)
        for family, half in exact(bench, families, GRAM_STEPS).items():
            ours[family] = half
        for name, halves in {
            f"{PUBLIC_BATCHES} masks, one a batch": public,
            f"{default} masks, one a sample": plain,
            f"{default} masks, pairs, fitted": fitted,
            "secateur.AOFP": ours,
        }.items():
            shares.setdefault(name, []).append(
                [len(a & b) / len(b) for a, b in zip(halves, limit, strict=True)]
            )
    table = Table("family", "units", "inner products", *shares)
    for family in bench.families:
        entry = bench.structure.families[family]
        means = [statistics.mean(r[family] for r in found) for found in shares.values()]
        known = "yes" if family in families else "no"
        table.add_row(entry.name, str(entry.num_units), known, *(f"{m:.1%}" for m in means))
    every = [statistics.mean(v for r in found for v in r) for found in shares.values()]
    table.add_row("mean", "", "", *(f"{mean:.1%}" for mean in every), style="bold")
    console.print(table)
    console.print(f"agreement with the half after {limit_masks} masks, {rounds} rounds")


def timing(bench: Bench, steps: int, console: Console) -> None:
    """Print what a half costs, beside the training that goes on anyway."""
    families = quadratic_families(bench)
    rest = frozenset(bench.families) - families
    default = AOFP().masks_per_half
    one = Ablation(off_VRU=bench.masks(1)[:1], sampled=frozenset(bench.families))
    masks = Ablation(off_VRU=bench.masks(MASK_ROWS), sampled=rest)
    both = Ablation(off_VRU=bench.masks(MASK_ROWS), sampled=rest, exact=families)
    asked = {"plain": None, "one mask": one, "masks": masks, "masks and inner products": both}
    step = step_of(bench, learning_rate=0.0)
    seconds: dict[str, list[float]] = {name: [] for name in asked}
    for _ in range(steps + 2):
        for name, ablation in asked.items():
            seconds[name].append(step(ablation))
    median = {name: statistics.median(values[2:]) for name, values in seconds.items()}
    half = -(-default // (2 * PAIRS * min(BATCH, MASK_ROWS)))
    grams = min(GRAM_STEPS, half)
    ours = (half - grams) * median["masks"] + grams * median["masks and inner products"]
    table = Table("way", "steps a half", "seconds a half", "of these searching", "masks")
    for name, count, total, number in (
        ("one mask a batch", PUBLIC_BATCHES, PUBLIC_BATCHES * median["one mask"], PUBLIC_BATCHES),
        ("one mask a batch, as many masks", default, default * median["one mask"], default),
        ("secateur.AOFP", half, ours, default),
    ):
        searching = total - count * median["plain"]
        table.add_row(name, str(count), f"{total:.1f}", f"{searching:.1f}", str(number))
    console.print(table)
    per_step = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in median.items())
    console.print(f"a step: {per_step}; batch {BATCH}, all families at once")
    console.print("A move of n units takes 1 to log2(n) halves; with inner products it takes one.")


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit", type=int, default=800_000, help="masks of the limit")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of the agreement")
    parser.add_argument("--epochs", type=int, default=15, help="epochs of training before")
    parser.add_argument("--width", type=float, default=0.5, help="width of the network")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each kind")
    options = parser.parse_args()
    console = Console()
    bench = trained(options.width, options.epochs)
    agreement(bench, options.limit, options.rounds, console)
    timing(bench, options.steps, console)
    console.print(describe())


if __name__ == "__main__":
    main()
