"""Works one cell out: its trainings, then the figures of its network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from secateur.compare._cell import Cell
from secateur.compare._result import Cost, Result, Seconds
from secateur.compare.recipes import Ground, Job, Made, OnRun
from secateur.training import trainer

RUNS = "runs"


def work_out(cell: Cell, out: Path, ground: Ground, on_run: OnRun) -> Result:
    """Make the network of a cell and measure it.

    Trainings that have ended before are not repeated, one that was stopped goes on.

    Args:
        cell: The cell.
        out: Folder of the comparison.
        ground: Data and full network.
        on_run: Called with the progress.

    Returns:
        The figures.

    Raises:
        UsageError: A setting does not fit the machine, the data or the network.
        StorageError: Something cannot be read or written.
        InterruptedRunError: The user asked to stop; a checkpoint was written.
    """
    job = Job(
        base=cell.base,
        schedules=cell.schedules,
        budget=cell.budget,
        ground=ground,
        folder=out / RUNS / f"{cell.recipe.recipe}-{cell.key}",
        pretrained=out / RUNS / f"pretrained-{cell.pretrained_key}",
        on_run=on_run,
    )
    made = cell.recipe.carry_out(job)
    on_run("measuring", trainer.Progress(phase="measure"))
    return _result(made, ground, cell.base.training, out)


def _result(made: Made, ground: Ground, training: trainer.TrainingConfig, out: Path) -> Result:
    outcome = made.outcome
    events = (outcome.run / "events.jsonl").read_text(encoding="utf-8").splitlines()
    start: dict[str, Any] = json.loads(events[0])
    return Result(
        test_accuracy=outcome.test_accuracy,
        macs=outcome.macs,
        dense_macs=ground.macs,
        params=outcome.params,
        dense_params=ground.params,
        latency=_latency(outcome.run, ground, training),
        bill=[Cost(what=i.what, macs=i.macs, seconds=i.seconds) for i in made.bill.items],
        machine=start["machine"],
        versions=start["versions"],
        run=outcome.run.relative_to(out).as_posix(),
    )


def _latency(run: Path, ground: Ground, training: trainer.TrainingConfig) -> dict[int, Seconds]:
    """Time the full network and the one of a run in turn, on the device they train on."""
    with trainer.own_threads(training.threads):
        network, _ = trainer.load_network(run)
        own = trainer.place(network, training)
        dense = trainer.place(ground.network(), training)
        image = ground.image.to(next(own.parameters()).device)
        found = trainer.measure_latency(dense, own, image)
    return {size: Seconds(dense=pair.before, own=pair.after) for size, pair in found.items()}
