"""Iterative pruning: what a stopper saves, beside the controls that such a claim needs.

    python benchmarks/infcop.py [--data digits|cifar] [--rule NAME ...] [--seeds N] [--json FILE]

All rows share mask rule, rewind point, optimizer, schedule, budget and seeds; only the stopper
differs: fixed budget, accuracy on the validation split, loss plateau, information flow, gradient
flow, accuracy or flow, one check always, and a random stop that spends what the flow run spent.
Within a level the learning rate is constant; the last level runs its whole budget and anneals.
Accuracy is that of the last epoch of the last level on the test split, which nothing has seen.
Rows of a seed that have stopped alike so far share their training: an epoch is trained once, and
its seconds count in every row that has it. On a processor, seconds are those that it worked for us.

`digits` (8 x 8 pixels, embedded) is the default. `cifar` trains ResNet-20 on CIFAR-10 as JPEG, at
16 x 16 pixels, if the file is there; tables are printed, and the file is written, after every seed.
"""

import argparse
import dataclasses
import json
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from _infcop_job import Epochs, Job, Preset, Timed, Trained
from _machine import describe
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

import secateur
from secateur import data
from secateur.methods.flows import GradientFlow, InformationFlow
from secateur.methods.mask_rules import MASK_RULES, SAP, MaskRule, mask_rule_named
from secateur.methods.stoppers import (
    AccuracyReached,
    AnyOf,
    FixedChunks,
    FlowConsistency,
    LossPlateau,
    RandomStop,
    Stopper,
)
from secateur.training.iteration import IterationReport

CIFAR = Path(__file__).parents[2] / "shared" / "data" / "cifar10-jpeg.npz"
RULES: dict[str, Callable[[], MaskRule]] = {"sap-0.5-1": lambda: SAP(p=0.5, q=1)} | {
    name: (lambda name=name: mask_rule_named(name)) for name in MASK_RULES
}


PRESETS = {
    "digits": Preset("digits-resnet", 8, 64, 0.05, 6, 8, 2, 128, 0.02),
    "cifar": Preset("resnet20", 16, 128, 0.05, 6, 8, 2, 1024, 0.05),
}


def stoppers(eps: float, gradient_eps: float) -> dict[str, Callable[[Job, list[int]], Stopper]]:
    """Rows of the table; each gets the job and the chunks of the flow run of the same seed."""

    def accuracy(job: Job) -> Stopper:
        return AccuracyReached(lambda: job.accuracy(job.validation))

    def information(job: Job) -> Stopper:
        flow = InformationFlow(job.net, [images for images, _ in job.probe])
        return FlowConsistency(flow, eps=eps)

    def gradient(job: Job) -> Stopper:
        flow = GradientFlow(job.net, job.probe, job.loss, masks=job.masks)
        return FlowConsistency(flow, eps=gradient_eps, norm="relative")

    return {
        "fixed": lambda job, spent: FixedChunks(job.preset.max_chunks),
        "accuracy": lambda job, spent: accuracy(job),
        "loss plateau": lambda job, spent: LossPlateau(job.validation_loss, patience=2),
        "information flow": lambda job, spent: information(job),
        "gradient flow": lambda job, spent: gradient(job),
        "accuracy or flow": lambda job, spent: AnyOf(information(job), accuracy(job)),
        "one check": lambda job, spent: FixedChunks(1),
        "random stop": lambda job, spent: RandomStop(spent, seed=job.seed),
    }


@dataclasses.dataclass
class Result:
    """One run: its report, and test accuracy at the end."""

    report: IterationReport
    test: float


def run(job: Job, rule: MaskRule, stopper: Stopper) -> Result:
    """Run all levels; the report gets the seconds of epochs that another row has trained."""
    report = secateur.iterate(
        job.net,
        job.optimizer,
        job.train,
        levels=job.preset.levels,
        max_chunks=job.preset.max_chunks,
        last_chunks=job.preset.max_chunks,
        warm_up=job.preset.warm_up,
        rule=rule,
        stopper=Timed(stopper, job.clock),
        masks=job.masks,
        seed=job.seed,
    )
    levels = tuple(
        dataclasses.replace(
            level,
            train_seconds=job.clock.train[level.number],
            measure_seconds=job.clock.measure[level.number],
        )
        for level in report.levels
    )
    report = dataclasses.replace(report, levels=levels, warm_up_seconds=job.clock.train[-1])
    return Result(report, job.accuracy(job.test))


def run_all(
    begin: Callable[[], Job],
    rule: str,
    rows: dict[str, Callable[[Job, list[int]], Stopper]],
    bar: Progress,
    task: TaskID,
) -> dict[str, Result]:
    """Run every row of one seed; the random stop comes after the flow run that it imitates."""
    results: dict[str, Result] = {}
    for name, make in rows.items():
        job = begin()
        flow = results.get("information flow")
        spent = [1] * job.preset.levels if flow is None else list(flow.report.chunks[:-1])
        results[name] = run(job, RULES[rule](), make(job, spent))
        bar.advance(task)
    return results


def load(name: str, preset: Preset, path: Path, limit: int | None) -> data.Dataset:
    """Load the data of a preset; with few training images there are few for validation, too."""
    if name == "digits":
        return data.load("digits", size=preset.size, limit=limit)
    few = {} if limit is None else {"limit": limit, "validation": limit // 9}
    return data.load("cifar10-jpeg", path, size=preset.size, **few)


def main() -> None:
    """Run everything and print one table a rule."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=PRESETS, default="digits")
    parser.add_argument("--path", type=Path, default=CIFAR, help="the .npz of JPEG files")
    parser.add_argument("--rule", choices=RULES, nargs="+", default=["global-magnitude"])
    parser.add_argument("--row", nargs="+", help="only these stoppers")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--eps", type=float, help="l2, information flow")
    parser.add_argument("--gradient-eps", type=float, default=0.5, help="relative, gradient flow")
    parser.add_argument("--levels", type=int)
    parser.add_argument("--max-chunks", type=int, help="epochs a level takes at most")
    parser.add_argument("--limit", type=int, help="training images, the first ones")
    parser.add_argument("--probe", type=int, help="images that flows are measured on")
    parser.add_argument("--json", type=Path, help="write every level of every run here")
    options = parser.parse_args()
    changes = {
        name: value
        for name in ("levels", "max_chunks", "probe", "eps")
        if (value := getattr(options, name)) is not None
    }
    preset = dataclasses.replace(PRESETS[options.data], **changes)
    if options.data == "cifar" and not options.path.exists():
        raise SystemExit(f"{options.path} is not there; give --path, or leave --data out.")
    dataset = load(options.data, preset, options.path, options.limit)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = stoppers(preset.eps, options.gradient_eps)
    rows = {name: make for name, make in rows.items() if name in (options.row or rows)}
    runs: dict[str, dict[str, list[Result]]] = {
        rule: {name: [] for name in rows} for rule in options.rule
    }
    for seed in range(options.seeds):
        trained: dict[tuple[str, Epochs], Trained] = {}
        for rule in options.rule:
            begin = partial(Job, preset, dataset, seed, device, trained, rule)
            with Progress(transient=True) as bar:
                task = bar.add_task(f"{rule}, seed {seed}", total=len(rows))
                for name, result in run_all(begin, rule, rows, bar, task).items():
                    runs[rule][name].append(result)
            show(rule, runs[rule], preset, options)
        if options.json:
            options.json.write_text(json.dumps(as_json(runs), indent=1))


def show(
    rule: str, results: dict[str, list[Result]], preset: Preset, options: argparse.Namespace
) -> None:
    """Print means over seeds."""
    table = Table(
        rule, "test accuracy %", "spread", "weights left", "epochs", "of budget",
        "training s", "measuring s", "check, % of an epoch", "saved, net",
    )  # fmt: skip
    for name, runs in results.items():
        reports = [result.report for result in runs]
        accuracies = [100 * result.test for result in runs]
        epochs = statistics.mean(r.epochs for r in reports)
        budget = reports[0].budget_epochs
        net = statistics.mean(1 - (r.epochs + r.measure_epochs) / budget for r in reports)
        table.add_row(
            name,
            f"{statistics.mean(accuracies):.2f}",
            f"{statistics.stdev(accuracies):.2f}" if len(accuracies) > 1 else "-",
            f"{statistics.mean(r.levels[-1].kept_share for r in reports):.1%}",
            f"{epochs:.1f}",
            f"{epochs / budget:.0%}",
            f"{statistics.mean(r.train_seconds for r in reports):.1f}",
            f"{statistics.mean(r.measure_seconds for r in reports):.2f}",
            f"{100 * statistics.mean(r.check_share for r in reports):.1f}"
            if all(r.num_checks for r in reports)
            else "-",
            f"{net:.0%}",
        )
    console = Console(width=130)
    console.print(table)
    console.print(
        f"{preset.model}, {preset.levels} levels of at most {preset.max_chunks} epochs after "
        f"{preset.warm_up} of warm-up, last level in full, flows on {preset.probe} images, eps "
        f"{preset.eps} and {options.gradient_eps}, {len(runs)} seed(s); {describe()}"
    )


def as_json(runs: dict[str, dict[str, list[Result]]]) -> dict[str, object]:
    """Every run as plain numbers: its accuracy and its levels."""
    return {
        rule: {
            name: [
                {"test": r.test, "levels": [dataclasses.asdict(level) for level in r.report.levels]}
                for r in results
            ]
            for name, results in rows.items()
        }
        for rule, rows in runs.items()
    }


if __name__ == "__main__":
    main()
