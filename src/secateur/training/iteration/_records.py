"""What is told to the training loop about a chunk, and what is told to the user about levels."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.masks import Masks

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A piece of training between two checks.

    Attributes:
        level: Number of the level, 0 for the dense network.
        number: Number of the chunk within its level (or within the warm-up), from 0.
        budget: Chunks that this level (or the warm-up) may take: what a schedule within a level
            can go by.
        total: Chunks trained before, over all levels: what a data order can be seeded with.
        warm_up: Whether the rewind point is still to come.
    """

    level: int
    number: int
    budget: int
    total: int
    warm_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What happened at a level.

    Attributes:
        number: 0 for the dense network.
        num_kept: Weights that are left, of those that have a mask.
        kept_share: The same as a share.
        emptied: Tensors of which nothing is left: what they feed no longer depends on the input.
        chunks: Chunks trained.
        budget: Chunks that it might have taken.
        because: What the stopper said; empty if the budget was spent.
        readings: What the stopper measured at each check, by name.
        train_seconds: Time spent in the user's training function.
        measure_seconds: Time spent in the stopper, references included.
        mask_seconds: Time spent on choosing masks and rewinding.
        evaluation: What ``evaluate`` returned at the end; None without.
        evaluate_seconds: Time that took.
    """

    number: int
    num_kept: int
    kept_share: float
    emptied: tuple[str, ...]
    chunks: int
    budget: int
    because: str
    readings: tuple[Mapping[str, float], ...]
    train_seconds: float
    measure_seconds: float
    mask_seconds: float
    evaluation: float | None
    evaluate_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IterationReport:
    """What `iterate` did, and what it cost. Printing it shows a table.

    Attributes:
        levels: One entry a level.
        warm_up_chunks: Chunks before the rewind point.
        warm_up_seconds: Time they took.
        chunk_epochs: Epochs in a chunk.
        masks: They still hold; ``masks.detach()`` ends that.
    """

    levels: tuple[Level, ...]
    warm_up_chunks: int
    warm_up_seconds: float
    chunk_epochs: float
    masks: Masks

    @property
    def chunks(self) -> tuple[int, ...]:
        """Chunks of every level: what a random control is given."""
        return tuple(level.chunks for level in self.levels)

    @property
    def epochs(self) -> float:
        """Epochs trained, warm-up included."""
        return self.chunk_epochs * (self.warm_up_chunks + sum(self.chunks))

    @property
    def budget_epochs(self) -> float:
        """Epochs that would have been trained without a stopper, warm-up included."""
        budget = sum(level.budget for level in self.levels)
        return self.chunk_epochs * (self.warm_up_chunks + budget)

    @property
    def train_seconds(self) -> float:
        """Time spent in the user's training function, warm-up included."""
        return self.warm_up_seconds + sum(level.train_seconds for level in self.levels)

    @property
    def measure_seconds(self) -> float:
        """Time spent in the stopper, references included."""
        return sum(level.measure_seconds for level in self.levels)

    @property
    def num_checks(self) -> int:
        """How often the stopper measured something."""
        return sum(bool(reading) for level in self.levels for reading in level.readings)

    @property
    def measure_epochs(self) -> float:
        """Time spent in the stopper, in training epochs of this run."""
        if not self.train_seconds:
            return 0.0
        return self.epochs * self.measure_seconds / self.train_seconds

    @property
    def check_share(self) -> float:
        """Cost of a check, as a share of a training epoch; references count as checks' cost."""
        return self.measure_epochs / max(1, self.num_checks)

    def __str__(self) -> str:
        from rich.console import Console

        stream = io.StringIO()
        Console(file=stream, width=110, color_system=None).print(self)
        return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()).rstrip()

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("level", "weights left", "chunks", "training", "measuring", "evaluation"):
            table.add_column(title, justify="right")
        table.add_column("ended because", overflow="fold")
        for level in self.levels:
            table.add_row(*_cells(level))
        return Group(table, *map(Text, self._notes()))

    def _notes(self) -> list[str]:
        saved = self.budget_epochs - self.epochs
        notes = [
            f"{self.epochs:g} of {self.budget_epochs:g} epochs were trained. Measuring took "
            f"{self.measure_seconds:.2f} s, as long as {self.measure_epochs:.2f} epochs: "
            f"{saved - self.measure_epochs:.2f} epochs were saved.",
        ]
        if self.num_checks:
            notes.append(
                f"A check costs {100 * self.check_share:.1f} % of a training epoch "
                f"({self.num_checks} checks)."
            )
        emptied = {name: level.number for level in reversed(self.levels) for name in level.emptied}
        notes += [f"Nothing is left of {n} from level {k} on." for n, k in emptied.items()]
        return notes


def _cells(level: Level) -> tuple[str, ...]:
    evaluation = "-" if level.evaluation is None else f"{level.evaluation:.4g}"
    return (
        str(level.number),
        f"{100 * level.kept_share:.2f} %",
        f"{level.chunks} of {level.budget}",
        f"{level.train_seconds:.2f} s",
        f"{level.measure_seconds:.2f} s",
        evaluation,
        level.because or "budget spent",
    )
