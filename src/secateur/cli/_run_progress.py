"""The progress of a run on the screen: one bar with loss, accuracy, MACs left and price."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from secateur.training import trainer

PHASES = {
    "load": "loading the data",
    "validate": "validating",
    "test": "testing",
    "measure": "measuring the latency",
    "report": "writing the report",
}


class RunProgress:
    """Shows one bar a run; give the object of a run to `train` as its ``on_progress``.

    Args:
        console: Where to show it.
    """

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
        )

    def run(self, name: str) -> trainer.OnProgress:
        """Add a bar.

        Args:
            name: What stands in front of it.

        Returns:
            What takes the progress of the run.
        """
        bar = self._bars.add_task(name, total=None, state=PHASES["load"])
        return lambda progress: self._show(bar, progress)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def _show(self, bar: TaskID, progress: trainer.Progress) -> None:
        self._bars.update(
            bar,
            completed=progress.step,
            total=progress.total_steps or None,
            state=describe(progress),
        )


def describe(progress: trainer.Progress) -> str:
    """Say in one line where a run stands.

    Args:
        progress: As the trainer tells it.

    Returns:
        Loss, accuracy, MACs left and price, as far as they are known, and what is done just now.
    """
    parts = []
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.3f}")
    if progress.validation_accuracy is not None:
        parts.append(f"accuracy {progress.validation_accuracy:.1%}")
    elif progress.train_accuracy is not None:
        parts.append(f"training accuracy {progress.train_accuracy:.1%}")
    if progress.total_steps:
        parts.append(f"MACs {progress.macs_share:.0%}")
    if progress.price is not None:
        parts.append(f"price {progress.price:.3g}")
    if progress.phase in PHASES:
        parts.append(PHASES[progress.phase])
    return "  ".join(parts)
