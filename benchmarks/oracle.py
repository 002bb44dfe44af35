"""How well scores order single units: rank correlation with the true loss change.

    python benchmarks/oracle.py [--data digits|cifar] [--epochs N] [--svg docs/images/oracle.svg]
    python benchmarks/oracle.py --loop    # the oracle's seconds only, several units a call or one

A network is trained, then every unit is silenced in turn and the loss measured on a fixed set of
training images. Every score sees the same images. Correlations are Spearman's: over all units, as
`secateur.prune` ranks them, and within families, averaged by size. `digits` trains the network of
the demo, `cifar` a ResNet-20 on images pooled to 16 x 16 pixels. Seconds are the processor's.

The data of `cifar` are the images of CIFAR-10 as JPEG, which is lossy.
"""

import argparse
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from _machine import describe
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import spearmanr
from torch.nn import functional as F

from secateur import data, models, trace
from secateur.data import Batches
from secateur.gates import Gates
from secateur.methods.scores import SCORES, Oracle, Subject, score_named
from secateur.structure import Structure

CIFAR = Path(__file__).parents[2] / "shared" / "data" / "cifar10-jpeg.npz"
NETWORKS = {"digits": "digits-resnet", "cifar": "resnet20"}
LEARNING_RATE, BATCH = 0.1, 128
Labelled = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Row:
    """One score: its correlations, and the seconds it took."""

    over_all: float
    within: float
    seconds: float


def load(name: str, file: Path) -> data.Dataset:
    """Load the data set of that name."""
    if name == "digits":
        return data.load("digits")
    return data.load("cifar10-jpeg", file, size=16)


def train(network: torch.nn.Module, dataset: data.Dataset, epochs: int) -> None:
    """Train with momentum and a rate that falls to zero along a cosine."""
    generator = torch.Generator().manual_seed(0)
    batches = Batches(
        dataset, "train", BATCH, augment=dataset.augment, generator=generator, drop_last=True
    )
    optimizer = torch.optim.SGD(
        network.parameters(), lr=LEARNING_RATE, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(batches))
    network.train()
    for _ in track(range(epochs), "training"):
        for images, labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
            schedule.step()


def accuracy(network: torch.nn.Module, dataset: data.Dataset) -> float:
    """Return the share of test images classified right."""
    network.eval()
    with torch.no_grad():
        right = [
            (network(images).argmax(1) == labels).float()
            for images, labels in Batches(dataset, "test", 256)
        ]
    return float(torch.cat(right).mean())


def correlations(structure: Structure, score_U: torch.Tensor, truth_U: torch.Tensor) -> Row:
    """Correlate over all units, and within families."""
    sizes = [family.num_units for family in structure.families]
    within = sum(
        size * float(spearmanr(score, truth).statistic)
        for size, score, truth in zip(
            sizes, score_U.split(sizes), truth_U.split(sizes), strict=True
        )
        if size > 1
    )
    counted = sum(size for size in sizes if size > 1)
    return Row(float(spearmanr(score_U, truth_U).statistic), within / counted, 0.0)


def subject_of(network: torch.nn.Module, structure: Structure, images: list[Labelled]) -> Subject:
    """Return what every score is given."""
    return Subject(
        model=network,
        structure=structure,
        live=structure.everything(),
        batches=images,
        loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        generator=torch.Generator().manual_seed(0),
    )


def one_by_one(subject: Subject) -> torch.Tensor:
    """Silence each unit in turn, and measure the loss on each batch: no vmap here."""
    gates = Gates(subject.model, subject.structure, subject.live)
    layers_L = torch.ones(subject.structure.num_layers, dtype=torch.bool)
    changes = []
    with torch.no_grad():
        dense = sum(float(subject.loss_of(batch)) for batch in subject.batches)
        for unit in range(subject.structure.num_units):
            on_U = torch.arange(subject.structure.num_units) != unit
            with gates.also_closed(on_U, layers_L):
                changes.append(sum(float(subject.loss_of(batch)) for batch in subject.batches))
    return (torch.tensor(changes, dtype=torch.float64) - dense) / len(subject.batches)


def time_oracle(subject: Subject) -> Table:
    """Time the loop, and calls of several units, which find the same."""
    begin = time.process_time()
    wanted_U = one_by_one(subject)
    plain = time.process_time() - begin
    table = Table("oracle", "seconds", "ratio", "largest difference, nats")
    table.add_row("unit by unit", f"{plain:.1f}", "1", "-")
    for number in (1, 4, 16, 64):
        begin = time.process_time()
        found_U = Oracle(num_together=number).changes(subject)
        seconds = time.process_time() - begin
        off = float((found_U - wanted_U).abs().max())
        table.add_row(f"{number} a call", f"{seconds:.1f}", f"{seconds / plain:.2f}", f"{off:.1e}")
    return table


def measure(
    network: torch.nn.Module, structure: Structure, images: list[Labelled]
) -> dict[str, Row]:
    """Score the network with everything there is, the oracle first."""
    scores, seconds = {}, {}
    for name in track(sorted(SCORES, key=lambda name: name != "oracle"), "scoring"):
        begin = time.process_time()
        scores[name] = score_named(name).units(subject_of(network, structure, images))
        seconds[name] = time.process_time() - begin
    rows = {}
    for name, score_U in scores.items():
        row = correlations(structure, score_U, scores["oracle"])
        rows[name] = Row(row.over_all, row.within, seconds[name])
    return dict(sorted(rows.items(), key=lambda item: -item[1].over_all))


def plot(rows: dict[str, Row], title: str) -> str:
    """Draw both correlations of every score as bars."""
    height = 60 + 34 * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {height}" font-size="12" '
        f'font-family="sans-serif"><rect width="640" height="{height}" fill="white"/>'
        f'<text x="10" y="18" font-size="13">{title}</text>'
        '<text x="160" y="38" fill="#2a6f97">over all units</text>'
        '<text x="260" y="38" fill="#e07a5f">within families</text>'
    ]
    for number, (name, row) in enumerate(rows.items()):
        top = 50 + 34 * number
        parts.append(f'<text x="150" y="{top + 16}" text-anchor="end">{name}</text>')
        for value, colour, down in ((row.over_all, "#2a6f97", 0), (row.within, "#e07a5f", 13)):
            left, width = 200 + 400 * min(value, 0.0), 400 * abs(value)
            parts.append(
                f'<rect x="{left:.1f}" y="{top + down}" width="{width:.1f}" height="11" '
                f'fill="{colour}"/><text x="{max(left + width, 200) + 4:.1f}" '
                f'y="{top + down + 10}" font-size="10">{value:.2f}</text>'
            )
    parts.append(f'<path d="M200 44V{height - 8}" stroke="#888"/></svg>\n')
    return "".join(parts)


def main() -> None:
    """Train, score, print a table, and draw it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=NETWORKS, default="digits")
    parser.add_argument("--file", type=Path, default=CIFAR, help="the .npz of JPEG files")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--images", type=int, default=512, help="images the scores are measured on")
    parser.add_argument("--width", type=float, default=1.0, help="factor on all widths")
    parser.add_argument("--loop", action="store_true", help="time the oracle only")
    parser.add_argument("--svg", type=Path, help="where to draw the figure")
    options = parser.parse_args()
    dataset = load(options.data, options.file)
    torch.manual_seed(0)
    channels, size = next(iter(Batches(dataset, "train", 1)))[0].shape[1:3]
    name = NETWORKS[options.data]
    network = models.build(name, len(dataset.class_names), channels, size, width=options.width)
    train(network, dataset, options.epochs)
    network.eval()
    images = list(itertools.islice(Batches(dataset, "train", BATCH), -(-options.images // BATCH)))
    structure = trace(network, images[0][0][:1])
    console = Console()
    if options.loop:
        console.print(time_oracle(subject_of(network, structure, images)))
        console.print(f"{name}, {structure.num_units} units, {options.images} images")
        console.print(describe(("torch",)))
        return
    rows = measure(network, structure, images)
    title = (
        f"{name} on {dataset.name}, {options.epochs} epochs, "
        f"test accuracy {100 * accuracy(network, dataset):.1f} %, {structure.num_units} units"
    )
    table = Table("score", "over all units", "within families", "seconds", title=title)
    for score, row in rows.items():
        table.add_row(score, f"{row.over_all:.3f}", f"{row.within:.3f}", f"{row.seconds:.2f}")
    console.print(table)
    console.print(describe(("torch",)))
    if options.svg:
        options.svg.write_text(plot(rows, f"Rank correlation with the oracle: {title}"))


if __name__ == "__main__":
    main()
