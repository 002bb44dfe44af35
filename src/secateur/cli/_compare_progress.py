"""The progress of a comparison on the screen: one bar of cells, one of what is being trained."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from secateur import compare
from secateur.cli._run_progress import describe


class CompareProgress:
    """Shows two bars; give `show` to `compare` as its ``on_progress``.

    Args:
        console: Where to show them.
    """

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._all = self._bars.add_task("cells", total=None, state="")
        self._one = self._bars.add_task("", total=None, state="", visible=False)
        self._shown = ""

    def show(self, progress: compare.Progress) -> None:
        """Show where a comparison stands.

        Args:
            progress: As `compare` tells it.
        """
        self._bars.update(
            self._all, completed=progress.finished, total=progress.cells, state=progress.cell
        )
        name = f"{progress.cell}: {progress.what}"
        if name != self._shown:
            self._shown = name
            self._bars.reset(self._one)
        self._bars.update(
            self._one,
            description=progress.what,
            completed=progress.run.step,
            total=progress.run.total_steps or None,
            state=describe(progress.run),
            visible=True,
        )

    def say(self, text: str) -> None:
        """Write a line above the bars.

        Args:
            text: The line.
        """
        self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            total = self._bars.tasks[0].total
            self._bars.update(self._all, completed=total, state="", visible=total is not None)
            self._bars.update(self._one, visible=False)
        self._bars.stop()
