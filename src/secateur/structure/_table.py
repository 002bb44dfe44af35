"""The table that `print(structure)` shows."""

from __future__ import annotations

import io
from collections import Counter

import torch
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from secateur.structure._structure import Family, Structure

_BAR = 12
_WIDTH = 110


def render(structure: Structure) -> str:
    """Write a structure as plain text.

    Args:
        structure: What to show.

    Returns:
        A table of families, the removable layers, and why the rest is fixed.
    """
    stream = io.StringIO()
    Console(file=stream, width=_WIDTH, color_system=None).print(table(structure))
    return stream.getvalue().rstrip()


def table(structure: Structure) -> RenderableType:
    """Lay a structure out for `rich`.

    Args:
        structure: What to show.

    Returns:
        A renderable.
    """
    macs, params = structure.cost.macs.value(), structure.cost.params.value()
    head = Text(
        f"{_counted(len(structure.families), 'family', 'families')}, "
        f"{_counted(structure.num_units, 'unit', 'units')}, "
        f"{_counted(structure.num_layers, 'removable layer', 'removable layers')}; "
        f"{_short(macs)} MACs (FLOPs = 2 x MACs), {_short(params)} parameters"
    )
    return Group(head, _families(structure, macs, params), *_layers(structure), *_fixed(structure))


def _families(structure: Structure, macs: float, params: float) -> Table:
    result = Table(box=None, pad_edge=False, header_style="bold")
    result.add_column("family", overflow="fold")
    result.add_column("kind")
    result.add_column("units", justify="right")
    result.add_column("MACs", justify="right")
    result.add_column("")
    result.add_column("params", justify="right")
    result.add_column("lives in", overflow="ellipsis", no_wrap=True, max_width=36)
    for number, family in enumerate(structure.families):
        share = _share(structure, number, macs, "macs")
        result.add_row(
            family.name + (" ~" if family.inexact else ""),
            family.kind,
            str(family.num_units),
            f"{share:.1%}",
            "█" * round(share * _BAR) or "▏",
            f"{_share(structure, number, params, 'params'):.1%}",
            _homes(family),
        )
    return result


def _share(structure: Structure, number: int, total: float, kind: str) -> float:
    """Share of the cost that goes when all units of a family but one go."""
    counts = torch.tensor([family.num_units for family in structure.families])
    counts[number] = 0
    polynomial = structure.cost.macs if kind == "macs" else structure.cost.params
    return (total - polynomial.value(counts)) / total if total else 0.0


def _homes(family: Family) -> str:
    homes = dict.fromkeys(member.tensor.rpartition(".")[0] for member in family.members)
    return ", ".join(homes)


def _layers(structure: Structure) -> list[Text]:
    if not structure.layers:
        return []
    names = ", ".join(layer.name for layer in structure.layers)
    return [Text(f"removable layers: {names}")]


def _fixed(structure: Structure) -> list[Text]:
    """Count fixed positions by reason; an inexact family is marked instead."""
    counts: Counter[str] = Counter()
    example: dict[str, str] = {}
    for fixed in structure.fixed:
        counts[fixed.reason.message] += 1
        example.setdefault(fixed.reason.message, f"{fixed.what}, {fixed.reason.source}")
    lines = [
        Text(f"fixed: {number} x {message} (first: {example[message]})", style="dim")
        for message, number in counts.most_common()
    ]
    if any(family.inexact for family in structure.families):
        lines.append(Text("~ inexact: shares a statistic with other units", style="dim"))
    return lines


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _short(value: float) -> str:
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.2f} {unit}"
    return f"{value:.0f}"
