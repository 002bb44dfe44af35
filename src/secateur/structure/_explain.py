"""`Structure.explain`: which units every axis of a tensor belongs to, or why it is fixed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from secateur.errors import UsageError
from secateur.structure._label import Ids
from secateur.structure._structure import Reason, TensorInfo

if TYPE_CHECKING:
    from secateur.structure._structure import Structure


@dataclass(frozen=True, slots=True, eq=False)
class Grounds:
    """Why components are fixed, kept as the trace left it and looked up on demand.

    Attributes:
        ranges: (canonical tensor name, axis) to the ids along that axis.
        component: Component of every id.
        blame: Index into ``reasons`` of what is held against a component first, else -1.
        reasons: Reasons that ``blame`` points to.
        freezes: Ids that something fixed, and why.
        inexact: Ids that share a statistic, and where.
    """

    ranges: dict[tuple[str, int], Ids]
    component: NDArray[np.int64]
    blame: NDArray[np.int64]
    reasons: tuple[Reason, ...]
    freezes: Sequence[tuple[Ids, Reason]]
    inexact: Sequence[tuple[Ids, Reason]]

    def against(self, name: str, axis: int) -> Iterator[tuple[Reason, int]]:
        """Yield everything that fixes positions of an axis, the reason that counted first.

        Args:
            name: Canonical name of a tensor.
            axis: One of its axes.

        Yields:
            A reason, and how many positions it fixes.
        """
        own = self.component[self.ranges[name, axis]]
        fixed = own[self.blame[own] >= 0]
        found: dict[Reason, NDArray[np.bool_]] = {}
        for number in np.unique(self.blame[fixed]).tolist():
            found[self.reasons[number]] = self.blame[fixed] == number
        for ids, reason in (*self.freezes, *self.inexact):
            met = np.isin(fixed, self.component[ids])
            if met.any():
                found[reason] = found.get(reason, met) | met
        for reason, where in found.items():
            yield reason, int(where.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What one family has on one axis.

    Attributes:
        family: Name of the family.
        kind: Its kind.
        num_units: Units of the family.
        positions_per_unit: Positions of the axis that leave with one unit.
        consumes: Whether the tensor multiplies the units here, rather than making them.
        inexact: Why removing a unit changes more than masking it would, or None.
    """

    family: str
    kind: str
    num_units: int
    positions_per_unit: int
    consumes: bool
    inexact: Reason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One axis of an explained tensor.

    Attributes:
        size: Its size.
        holdings: Families whose units lie on it.
        fixed: Reasons against the other positions, each with the number of positions it fixes. One
            position may have several reasons; the one that counted comes first.
    """

    size: int
    holdings: tuple[Holding, ...]
    fixed: tuple[tuple[Reason, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What becomes of one parameter or buffer; ``print`` it.

    Attributes:
        tensor: The tensor, with all its names.
        axes: Its axes; none where it holds whole numbers, which belong to no unit.
        layers: Removable layers that take it along.
    """

    tensor: TensorInfo
    axes: tuple[Axis, ...]
    layers: tuple[str, ...]

    def __str__(self) -> str:
        kind = "parameter" if self.tensor.is_parameter else "buffer"
        lines = [f"{self.tensor.name}: {kind} of shape {list(self.tensor.shape)}"]
        if len(self.tensor.aliases) > 1:
            lines.append(f"also named {', '.join(self.tensor.aliases[1:])}")
        for number, axis in enumerate(self.axes):
            lines += _axis_lines(number, axis)
        if self.tensor.shape and not self.axes:
            lines.append("holds no units: its numbers are not floating-point")
        lines += [f"leaves as a whole with the layer {name}" for name in self.layers]
        return "\n".join(lines)


def explain(structure: Structure, name: str) -> Explanation:
    """Say of one tensor what may leave it, and why the rest stays.

    Args:
        structure: Structure of a traced model.
        name: Qualified name of a parameter or buffer; any of its names if it is tied.

    Returns:
        What each axis belongs to.

    Raises:
        UsageError: The model has no such tensor, or the structure was not traced.
    """
    info = _tensor(structure, name)
    grounds = structure.grounds
    if grounds is None:
        raise UsageError(
            f"{name} cannot be explained: this structure was put together by hand and holds no "
            "reasons. Expected one that secateur.trace returned."
        )
    known = (info.name, 0) in grounds.ranges
    return Explanation(
        tensor=info,
        axes=tuple(
            Axis(
                size=size,
                holdings=tuple(_holdings(structure, info.name, axis)),
                fixed=tuple(grounds.against(info.name, axis)),
            )
            for axis, size in enumerate(info.shape if known else ())
        ),
        layers=tuple(layer.name for layer in structure.layers if info.name in layer.tensors),
    )


def _tensor(structure: Structure, name: str) -> TensorInfo:
    if name in structure.tensors:
        return structure.tensors[name]
    names = {alias: info for info in structure.tensors.values() for alias in info.aliases}
    if name in names:
        return names[name]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    within = [known for known in names if known.startswith(f"{name}.")][:3]
    hint = ", ".join(within or close or list(names)[:3])
    raise UsageError(
        f"The model has no parameter or buffer named {name!r}. Give a name as in "
        f"model.named_parameters() or model.named_buffers(); close to it are: {hint or 'none'}."
    )


def _holdings(structure: Structure, name: str, axis: int) -> Iterator[Holding]:
    for family in structure.families:
        for member in family.members:
            if (member.tensor, member.axis) == (name, axis):
                yield Holding(
                    family=family.name,
                    kind=family.kind,
                    num_units=family.num_units,
                    positions_per_unit=int(member.index.shape[1]),
                    consumes=member.consumes,
                    inexact=family.inexact,
                )


def _axis_lines(number: int, axis: Axis) -> list[str]:
    """Describe one axis, a line for each family and each reason."""
    lines = []
    for held in axis.holdings:
        verb = "multiplies" if held.consumes else "belongs to"
        mark = f"; inexact: {held.inexact}" if held.inexact else ""
        lines.append(
            f"{verb} the {held.num_units} units ({held.kind}) of {held.family}, "
            f"{_counted(held.positions_per_unit, 'position')} each{mark}"
        )
    lines += _fixed_lines(axis)
    head = f"axis {number} ({_counted(axis.size, 'position')}): "
    rest = " " * len(head)
    return [(rest if i else head) + line for i, line in enumerate(lines or ["not used"])]


def _fixed_lines(axis: Axis) -> Iterator[str]:
    """Give each sentence once, with the first place that says so and the number of others."""
    places: dict[tuple[str, int], list[Reason]] = {}
    for reason, count in axis.fixed:
        places.setdefault((reason.message, count), []).append(reason)
    for (_, count), reasons in places.items():
        many = "all" if count == axis.size else str(count)
        more = f", and at {len(reasons) - 1} more" if len(reasons) > 1 else ""
        yield f"{many} fixed: {reasons[0]}{more}"


def _counted(number: int, one: str) -> str:
    return f"{number} {one}" if number == 1 else f"{number} {one}s"
