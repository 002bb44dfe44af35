"""What `prune` did to a model, to be printed.

Letters: U units over all families.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from secateur.methods.scores import live_units
from secateur.structure import Live, Structure
from secateur.surgery import Edit

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One removal.

    Attributes:
        num_units: Units removed.
        macs: Multiply-accumulates of the traced example after it.
        params: Parameters after it.
    """

    num_units: int
    macs: float
    params: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pruned:
    """What went, what stayed, and what it saved; `print` shows it as a table.

    Attributes:
        structure: What the model was made of.
        live: What is left of it.
        edit: Everything that separates it from the model that was built, which it also carries.
        score: Name of the score.
        scores: Score of every unit as last measured, before it went if it is gone, ``[U]``.
        rounds: The removals, in order.
    """

    structure: Structure
    live: Live
    edit: Edit
    score: str
    scores: Tensor
    rounds: tuple[Round, ...]

    @property
    def macs(self) -> tuple[float, float]:
        """Multiply-accumulates of the traced example, before and after."""
        return (self.structure.cost.macs.value(), self.rounds[-1].macs)

    @property
    def params(self) -> tuple[float, float]:
        """Parameters, before and after."""
        return (self.structure.cost.params.value(), self.rounds[-1].params)

    def __str__(self) -> str:
        from rich.console import Console

        stream = io.StringIO()
        Console(file=stream, width=100, color_system=None).print(self)
        return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()).rstrip()

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("family", overflow="fold")
        table.add_column("kind")
        for title in ("before", "after", "kept", *self._score_titles()):
            table.add_column(title, justify="right")
        for row in self._rows():
            table.add_row(*row)
        return Group(Text(self._headline()), table)

    def _headline(self) -> str:
        removed = sum(done.num_units for done in self.rounds)
        rounds = "1 round" if len(self.rounds) == 1 else f"{len(self.rounds)} rounds"
        return (
            f"Removed {removed:,} of {self.structure.num_units:,} units by {self.score} in "
            f"{rounds}: {_percent(self.macs)} of the MACs "
            f"({self.macs[0]:,.0f} to {self.macs[1]:,.0f}) and {_percent(self.params)} of the "
            f"parameters ({self.params[0]:,.0f} to {self.params[1]:,.0f}) are left."
        )

    def _score_titles(self) -> tuple[str, ...]:
        """Name the columns of scores; those of several rounds cannot be compared."""
        return ("best gone", "worst kept") if len(self.rounds) == 1 else ()

    def _rows(self) -> list[tuple[str, ...]]:
        rows = []
        sizes = [family.num_units for family in self.structure.families]
        for family, live_U, score_U in zip(
            self.structure.families, self.live.units, self.scores.split(sizes), strict=True
        ):
            widths = (family.num_units, int(live_U.sum()))
            gone_U = score_U[~live_U]
            best_gone = f"{float(gone_U.max()):.3g}" if len(gone_U) else "-"
            worst_kept = f"{float(score_U[live_U].min()):.3g}"
            numbers = (*map(str, widths), _percent(widths))
            scores = (best_gone, worst_kept)[: len(self._score_titles())]
            rows.append((family.name, family.kind, *numbers, *scores))
        return rows


def merge_scores(old_U: Tensor, new_U: Tensor, live: Live) -> Tensor:
    """Let units that are left have new scores, and keep those of units that are gone.

    Args:
        old_U: Scores so far, ``[U]``.
        new_U: Scores just measured, ``[U]``.
        live: What was left when they were measured.

    Returns:
        Scores, ``[U]``.
    """
    return torch.where(live_units(live), new_U.double(), old_U)


def _percent(before_after: tuple[float, float]) -> str:
    before, after = before_after
    return f"{100 * after / before:.1f} %" if before else "-"
