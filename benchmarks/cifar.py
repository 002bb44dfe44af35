"""CIFAR-10 (JPEG), ResNet-20: the network found against one narrowed by hand to the same MACs.

    python benchmarks/cifar.py [--preset cpu|gpu] [--data FILE] [--price NU] [--settle-at SHARE]

Three runs a seed with the same schedule: dense; with structure search; and a dense ResNet-20 whose
widths are all scaled so that it has the MACs the search ended at. Accuracy is that of the last
epoch on the test split, which no decision has seen. `cpu` is a shortened schedule on images pooled
to 16 x 16 (under 20 minutes on two cores); `gpu` is full length at 32 x 32.

The data are the images of CIFAR-10 as JPEG, which is lossy: compare only runs on this copy.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
from pathlib import Path

import torch
from _machine import describe
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from secateur import models
from secateur.training import trainer

DATA = Path(__file__).parents[2] / "shared" / "data" / "cifar10-jpeg.npz"


@dataclasses.dataclass(frozen=True)
class Preset:
    """A schedule: image size in pixels, epochs, epochs of warm-up, seeds, end of the search."""

    size: int
    epochs: int
    warmup_epochs: float
    seeds: int
    precision: str
    settle_at: float | None


PRESETS = {
    "cpu": Preset(
        size=16, epochs=8, warmup_epochs=1.0, seeds=1, precision="32-true", settle_at=0.5
    ),
    "gpu": Preset(
        size=32, epochs=160, warmup_epochs=5.0, seeds=3, precision="32-true", settle_at=None
    ),
}


def config(preset: Preset, data: Path, seed: int, **changes: object) -> trainer.Config:
    """Return the settings of one run."""
    return trainer.Config(
        name="cifar",
        model=trainer.ModelConfig(name="resnet20", width=changes.get("width", 1.0)),
        data=trainer.DataConfig(name="cifar10-jpeg", root=str(data), size=preset.size),
        training=trainer.TrainingConfig(
            epochs=preset.epochs,
            warmup_epochs=preset.warmup_epochs,
            precision=preset.precision,
            seed=seed,
        ),
        search=changes.get("search"),
    )


def width_for(macs: float, size: int) -> float:
    """Find the factor on all widths of ResNet-20 whose MACs come closest to a number."""
    image = torch.zeros(1, 3, size, size)
    candidates = [n / 64 for n in range(4, 65)]

    def distance(width: float) -> float:
        network = models.build("resnet20", 10, 3, size, width=width)
        return abs(trainer.count_macs(network, image) - macs)

    return min(candidates, key=distance)


def run_once(settings: trainer.Config, folder: Path, title: str) -> trainer.Outcome:
    """Train with a progress bar."""
    with Progress(transient=True) as bar:
        task = bar.add_task(title, total=None)

        def on_progress(state: trainer.Progress) -> None:
            bar.update(task, completed=state.step, total=state.total_steps or None)

        return trainer.train(trainer.create_run(settings, folder), on_progress=on_progress)


def share_of_training(run: Path) -> dict[str, object]:
    """Read what a finished run wrote down last."""
    return json.loads((run / "events.jsonl").read_text().splitlines()[-1])


def main() -> None:
    """Run everything and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--data", type=Path, default=DATA, help="the .npz of JPEG files")
    parser.add_argument("--price", type=float, default=0.5, help="nats per 100 %% of the MACs")
    parser.add_argument(
        "--settle-at",
        type=float,
        help="share of the run until the structure is final (default: the preset's)",
    )
    parser.add_argument("--seeds", type=int, help="number of seeds (default: the preset's)")
    parser.add_argument("--out", type=Path, help="keep the run folders here")
    options = parser.parse_args()
    preset = PRESETS[options.preset]
    folder = options.out or Path(tempfile.mkdtemp(prefix="cifar-"))
    rows: dict[str, list[trainer.Outcome]] = {"dense": [], "found": [], "narrowed by hand": []}
    for seed in range(options.seeds or preset.seeds):
        base = folder / f"seed-{seed}"
        dense = run_once(config(preset, options.data, seed), base / "dense", f"dense {seed}")
        settle_at = preset.settle_at if options.settle_at is None else options.settle_at
        search = trainer.SearchConfig(price=options.price, settle_at=settle_at)
        settings = config(preset, options.data, seed, search=search)
        found = run_once(settings, base / "found", f"found {seed}")
        width = width_for(found.macs, preset.size)
        settings = config(preset, options.data, seed, width=width)
        narrow = run_once(settings, base / "narrow", f"narrowed {seed}")
        for row, outcome in zip(rows.values(), (dense, found, narrow), strict=True):
            row.append(outcome)
    report(rows, preset, options.price)


def report(rows: dict[str, list[trainer.Outcome]], preset: Preset, price: float) -> None:
    """Print means over seeds."""
    table = Table(
        "ResNet-20 on CIFAR-10 (JPEG)", "accuracy %", "spread", "MACs", "params", "layers gone",
        "training s", "training MACs",
    )  # fmt: skip
    dense = rows["dense"]
    for name, outcomes in rows.items():
        ends = [share_of_training(outcome.run) for outcome in outcomes]
        accuracies = [100 * outcome.test_accuracy for outcome in outcomes]
        pairs = zip(outcomes, dense, strict=True)
        slower = statistics.mean(o.train_seconds / d.train_seconds for o, d in pairs)
        table.add_row(
            name,
            f"{statistics.mean(accuracies):.2f}",
            f"{statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else "-",
            f"{statistics.mean(o.macs for o in outcomes) / dense[0].macs:.1%}",
            f"{statistics.mean(o.params for o in outcomes) / dense[0].params:.1%}",
            f"{statistics.mean(len(end['removed_layers']) for end in ends):.1f}",
            f"{statistics.mean(o.train_seconds for o in outcomes):.0f} ({slower:.2f} x)",
            f"{statistics.mean(end['training_macs'] for end in ends):.2e}",
        )
    console = Console(width=130)
    console.print(table)
    console.print(
        f"price {price}, {preset.epochs} epochs, {preset.size} x {preset.size} pixels, batch 128, "
        f"{len(dense)} seed(s), last epoch, test split; {describe()}"
    )


if __name__ == "__main__":
    main()
