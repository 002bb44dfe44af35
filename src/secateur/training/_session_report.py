"""What a search has found so far, to be printed."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.structure import Live, Structure

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyWidth:
    """Units of a family.

    Attributes:
        name: The family.
        kind: ``filter``, ``neuron``, ``head`` or ``channel``.
        before: Units at the start.
        after: Units that are left; 0 where the layer around them is gone.
    """

    name: str
    kind: str
    before: int
    after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionReport:
    """What went, what stayed, and what it saved; `print` shows it as a table.

    Attributes:
        step: Optimizer steps taken, counted until the network settled.
        total_steps: Optimizer steps of the whole training.
        settled: Whether the network is final.
        families: Units before and after.
        layers_kept: Names of the removable layers that are left.
        layers_removed: Names of the layers that are gone.
        macs: Multiply-accumulates of the traced example, before and after.
        params: Parameters, before and after.
        training_macs_share: MACs spent on training so far, as a share of what the starting
            network would have taken for the same steps.
    """

    step: int
    total_steps: int
    settled: bool
    families: tuple[FamilyWidth, ...]
    layers_kept: tuple[str, ...]
    layers_removed: tuple[str, ...]
    macs: tuple[float, float]
    params: tuple[float, float]
    training_macs_share: float

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
        for title in ("before", "after", "kept"):
            table.add_column(title, justify="right")
        for family in self.families:
            numbers = (str(family.before), str(family.after), _percent(family.after, family.before))
            table.add_row(family.name, family.kind, *numbers)
        return Group(Text(self._headline()), table, *map(Text, self._notes()))

    def _headline(self) -> str:
        when = "settled at" if self.settled else "still searching at"
        return (
            f"{when.capitalize()} step {self.step:,} of {self.total_steps:,}: "
            f"{_percent(self.macs[1], self.macs[0])} of the MACs "
            f"({self.macs[0]:,.0f} to {self.macs[1]:,.0f}) and "
            f"{_percent(self.params[1], self.params[0])} of the parameters "
            f"({self.params[0]:,.0f} to {self.params[1]:,.0f}) are left."
        )

    def _notes(self) -> list[str]:
        num_layers = len(self.layers_kept) + len(self.layers_removed)
        notes = []
        if num_layers:
            gone = f" Gone: {', '.join(self.layers_removed)}." if self.layers_removed else ""
            notes.append(f"{len(self.layers_kept)} of {num_layers} removable layers stayed.{gone}")
        notes.append(
            f"Training up to here took {100 * self.training_macs_share:.1f} % of the MACs that the "
            "starting network would have taken."
        )
        return notes


def make_report(
    structure: Structure,
    live: Live,
    *,
    step: int,
    total_steps: int,
    settled: bool,
    training_macs_share: float,
) -> SessionReport:
    """Compare what is left with what there was.

    Args:
        structure: What the model was made of.
        live: What is left.
        step: Optimizer steps taken, counted until the network settled.
        total_steps: Optimizer steps of the whole training.
        settled: Whether the network is final.
        training_macs_share: MACs spent so far, as a share of the starting network's.

    Returns:
        The report.
    """
    alive = live.layers.tolist()
    gone = frozenset[str]().union(
        *(layer.tensors for layer, on in zip(structure.layers, alive, strict=True) if not on)
    )
    families = [
        FamilyWidth(
            name=family.name,
            kind=family.kind,
            before=family.num_units,
            after=0 if gone.issuperset(m.tensor for m in family.members) else int(mask.sum()),
        )
        for family, mask in zip(structure.families, live.units, strict=True)
    ]
    macs, params = structure.cost.macs, structure.cost.params
    return SessionReport(
        step=step,
        total_steps=total_steps,
        settled=settled,
        families=tuple(families),
        layers_kept=tuple(y.name for y, on in zip(structure.layers, alive, strict=True) if on),
        layers_removed=tuple(
            y.name for y, on in zip(structure.layers, alive, strict=True) if not on
        ),
        macs=(macs.value(), macs.value(live.counts, live.layers)),
        params=(params.value(), params.value(live.counts, live.layers)),
        training_macs_share=training_macs_share,
    )


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"
