"""Training from a config to a finished run folder, from the start or from a checkpoint."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from secateur._version import __version__
from secateur.errors import UsageError
from secateur.report import write_report
from secateur.storage import save
from secateur.training.trainer._checkpoint import has_checkpoint, read_checkpoint
from secateur.training.trainer._config import Config
from secateur.training.trainer._discovery import begin_search
from secateur.training.trainer._evaluate import evaluate
from secateur.training.trainer._event_log import EventLog
from secateur.training.trainer._interrupt import interruptible
from secateur.training.trainer._latency import measure_latency
from secateur.training.trainer._loop import Loop, Surroundings
from secateur.training.trainer._outcome import Outcome
from secateur.training.trainer._parts import Parts, begin_network, build_parts, count_macs
from secateur.training.trainer._progress import OnProgress, Progress
from secateur.training.trainer._random_state import own_generators
from secateur.training.trainer._run_folder import is_finished, open_run
from secateur.training.trainer._threads import own_threads


def train(run: Path, *, on_progress: OnProgress, baseline: Path | None = None) -> Outcome:
    """Carry a run through to its end, from its last checkpoint if it has one.

    On one CPU process the result is the same to the last bit however often the run was stopped.
    torch's global generators are left as they were.

    Args:
        run: A folder that `create_run` made.
        on_progress: Called at most five times a second, and whenever the phase changes.
        baseline: Folder of a dense run to compare with in the report.

    Returns:
        The figures of the finished network.

    Raises:
        UsageError: The run is finished, or a setting does not fit machine, data or network.
        StorageError: Data or checkpoint cannot be read, or the folder cannot be written.
        InterruptedRunError: The user asked to stop; a checkpoint was written.
    """
    config = open_run(run)
    if is_finished(run):
        raise UsageError(
            f"The run in {run} is finished; there is nothing left to resume. "
            f"See its report with `secateur report {run}`."
        )
    saved: dict[str, Any] = read_checkpoint(run) if has_checkpoint(run) else {}
    on_progress(Progress(phase="load"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with (
        own_threads(config.training.threads),
        own_generators(device, config.training.seed),
        EventLog(
            run, num_bytes=saved.get("events_bytes", 0), seconds=saved.get("seconds", 0.0)
        ) as log,
        interruptible() as request,
    ):
        parts = build_parts(config)
        surroundings = Surroundings(run=run, log=log, request=request, on_progress=on_progress)
        loop = _begin(config, parts, surroundings, saved.get("loop"))
        loop.fit()
        return _finish(config, parts, loop, surroundings, baseline)


def _begin(
    config: Config, parts: Parts, surroundings: Surroundings, saved: Mapping[str, Any] | None
) -> Loop:
    """Make the loop; write the start of the run down, or take the saved state in."""
    macs = count_macs(parts.model, parts.image)
    loop = Loop(config, parts, macs=macs, surroundings=surroundings)
    start = _start_event(config, parts, loop)
    is_new = saved is None

    def on_event(event: dict[str, object]) -> None:
        if event["event"] != "start":
            loop.record(event)
        elif is_new:
            surroundings.log.write({**event, **start})

    begun = time.perf_counter()
    loop.search = begin_search(config, parts, total_steps=loop.total_steps, on_event=on_event)
    loop.train_seconds = time.perf_counter() - begun
    if saved is not None:
        loop.load_state_dict(saved)
    elif loop.search is None:
        surroundings.log.write(start | {"families": [], "layers": [], "method": None})
    return loop


def _start_event(config: Config, parts: Parts, loop: Loop) -> dict[str, object]:
    return {
        "event": "start",
        "step": 0,
        "model": config.model.name,
        "data": config.data.name,
        "seed": config.training.seed,
        "shape": asdict(parts.shape),
        "total_steps": loop.total_steps,
        "macs": loop.macs,
        "params": loop.params,
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "device": _device_name(parts.fabric.device),
            "threads": torch.get_num_threads(),
        },
        "versions": {
            "secateur": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    }


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def _finish(
    config: Config,
    parts: Parts,
    loop: Loop,
    surroundings: Surroundings,
    baseline: Path | None,
) -> Outcome:
    """Test, measure and save the finished network, and write the report."""
    report = None if loop.search is None else loop.search.report()
    if loop.search is not None:
        loop.search.detach()
    save(parts.model, surroundings.run)
    loop.report("test")
    test = evaluate(loop.network, parts.test)
    loop.report("measure")
    fresh = begin_network(config, parts.shape).to(parts.fabric.device)
    latency = measure_latency(fresh, parts.model, parts.image)
    outcome = Outcome(
        run=surroundings.run,
        test_accuracy=test.accuracy,
        test_loss=test.loss,
        macs_before=count_macs(fresh, parts.image),
        macs=count_macs(parts.model, parts.image),
        params_before=sum(parameter.numel() for parameter in fresh.parameters()),
        params=loop.params,
        latency=latency,
        threads=torch.get_num_threads(),
        train_seconds=loop.train_seconds,
        training_macs=loop.training_macs,
        report=surroundings.run / "report.html",
    )
    families = () if report is None else report.families
    surroundings.log.write(
        {
            "event": "end",
            "step": loop.step,
            "test_accuracy": test.accuracy,
            "test_loss": test.loss,
            "macs": outcome.macs,
            "params": outcome.params,
            "train_seconds": outcome.train_seconds,
            "latency": {
                str(size): {"before": seconds.before, "after": seconds.after}
                for size, seconds in latency.items()
            },
            "threads": outcome.threads,
            "widths": {family.name: [family.before, family.after] for family in families},
            "removed_layers": [] if report is None else report.layers_removed,
            "training_macs": loop.training_macs,
        }
    )
    loop.report("report")
    write_report(surroundings.run, baseline=baseline)
    return outcome
