"""From components to the `Structure` a user sees: families, what is fixed, and the cost.

Units belong to one family when they hold the same number of positions on the same axes of the same
tensors and count equally in every cost factor, so that a cost is a polynomial in family sizes.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.structure._chosen import row_shares
from secateur.structure._cost import Cost, Factor, Polynomial, Term
from secateur.structure._heads import inside_heads
from secateur.structure._label import Ids
from secateur.structure._solve import Solution
from secateur.structure._structure import Family, Fixed, Layer, Member, TensorInfo
from secateur.structure._tape import Tape
from secateur.structure._units import Units, axis_factor


def families(
    tape: Tape, solution: Solution, units: Units, tensors: Mapping[str, TensorInfo]
) -> tuple[Family, ...]:
    """Describe every family by its slices.

    Args:
        tape: The trace.
        solution: Its components.
        units: Families and unit numbers.
        tensors: Parameters and buffers by canonical name.

    Returns:
        Families, in the order of their numbers.
    """
    members: list[list[Member]] = [[] for _ in units.sizes]
    inexact = np.full(len(units.sizes), -1, dtype=np.int64)
    seen: dict[bytes, list[_Place]] = {}
    for (name, axis), ids in tape.ranges.items():
        component = solution.component[ids]
        key = component.tobytes()
        if key not in seen:
            seen[key] = list(_places(component, units))
            for place in seen[key]:
                worst = solution.inexact[component[place.positions]].max()
                inexact[place.family] = max(inexact[place.family], worst)
        for place in seen[key]:
            here = ids[place.positions]
            consumes = bool(solution.consumed[here].all())
            member = Member(tensor=name, axis=axis, index=place.index, consumes=consumes)
            members[place.family].append(member)
            if solution.only_makers[here].all():
                members[place.family].append(dataclasses.replace(member, consumes=False))
    inside = set(units.family[inside_heads(tape, solution.component)].tolist())
    fewest = {int(units.family[one]): count for one, count in solution.fewest.items()}
    picked = {pick.tensor for pick in tape.picks}
    blocks = {n for ids in tape.blocks for n in units.family[solution.component[ids]].tolist()}
    names: dict[str, int] = {}
    result = []
    for number, (own, size) in enumerate(zip(members, units.sizes, strict=True)):
        is_chosen = number in fewest
        maker = _maker([m for m in own if not is_chosen or m.tensor in picked], tensors)
        kind = _kind(maker, tensors, picked)
        if is_chosen or number in inside:
            kind = "expert" if is_chosen else "dimension"
        elif kind == "head" and number in blocks:
            kind = "neuron"
        base = maker.tensor.rpartition(".")[0] or maker.tensor
        names[base] = names.get(base, 0) + 1
        result.append(
            Family(
                name=base if names[base] == 1 else f"{base}#{names[base]}",
                kind=kind,
                num_units=size,
                members=tuple(own),
                inexact=solution.reasons[inexact[number]] if inexact[number] >= 0 else None,
                fewest=fewest.get(number, 1),
            )
        )
    return tuple(result)


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where one family lies on an axis: its positions, and those of each unit ``[U, K]``."""

    family: int
    positions: NDArray[np.int64]
    index: Tensor


def _places(component: NDArray[np.int64], units: Units) -> Iterator[_Place]:
    """Yield the families on an axis of these components."""
    family = units.family[component]
    first = family[0] if len(family) else -1
    if (family == first).all():
        if first >= 0:
            yield _place(int(first), np.arange(len(family)), component, units)
        return
    order = np.argsort(family, kind="stable")
    edges = np.flatnonzero(np.diff(family[order], prepend=-2, append=-2))
    for start, stop in itertools.pairwise(edges.tolist()):
        number = int(family[order[start]])
        if number >= 0:
            yield _place(number, order[start:stop], component, units)


def _place(
    family: int, positions: NDArray[np.int64], component: NDArray[np.int64], units: Units
) -> _Place:
    """Sort the positions of one family on an axis by the unit they belong to."""
    unit = np.argsort(units.unit[component[positions]], kind="stable")
    index = torch.from_numpy(positions[unit].reshape(units.sizes[family], -1))
    return _Place(family, positions, index)


def _maker(members: Sequence[Member], tensors: Mapping[str, TensorInfo]) -> Member:
    """Find the first weight that makes the units; else the first parameter at all."""
    learned = [m for m in members if tensors[m.tensor].is_parameter and not m.consumes]
    matrices = [m for m in learned if len(tensors[m.tensor].shape) > 1]
    return (matrices or learned)[0]


def _kind(maker: Member, tensors: Mapping[str, TensorInfo], picked: Container[str]) -> str:
    # A tensor of which experts pick slices stacks their weights.
    ndim = len(tensors[maker.tensor].shape) - (maker.tensor in picked)
    if ndim > 2:
        return "filter"
    if ndim == 2 and maker.index.shape[1] > 1:
        return "head"
    return "neuron" if ndim == 2 else "channel"


def cost(
    tape: Tape,
    solution: Solution,
    units: Units,
    tensors: Mapping[str, TensorInfo],
    layers: Sequence[Layer],
    layer_nodes: Sequence[frozenset[int]],
) -> Cost:
    """Compile MACs and parameters into polynomials.

    Args:
        tape: The trace.
        solution: Its components.
        units: Families and unit numbers.
        tensors: Parameters and buffers by canonical name.
        layers: Removable layers.
        layer_nodes: Nodes that a layer takes with it.

    Returns:
        Both polynomials.
    """
    cache: dict[bytes, Factor] = {}

    def factor(ids: Ids) -> Factor:
        component = solution.component[ids]
        key = component.tobytes()
        if key not in cache:
            cache[key] = axis_factor(units, component)
        return cache[key]

    of_node: dict[int, tuple[int, ...]] = {}
    of_tensor: dict[str, tuple[int, ...]] = {}
    for number, (layer, nodes) in enumerate(zip(layers, layer_nodes, strict=True)):
        for node in nodes:
            of_node[node] = (*of_node.get(node, ()), number)
        for name in layer.tensors:
            of_tensor[name] = (*of_tensor.get(name, ()), number)

    shares = row_shares(tape)
    macs = [
        _term(
            charge.coefficient * shares.get(charge.node, 1.0),
            [factor(ids) for ids in charge.factors],
            of_node.get(charge.node, ()),
        )
        for charge in tape.charges
    ]
    params = [
        _term(
            1.0,
            [factor(tape.ranges[name, axis]) for axis in range(len(info.shape))]
            if (name, 0) in tape.ranges
            else [Factor(float(np.prod(info.shape)))],
            of_tensor.get(name, ()),
        )
        for name, info in tensors.items()
        if info.is_parameter
    ]
    return Cost(
        macs=Polynomial(macs, units.sizes, len(layers)),
        params=Polynomial(params, units.sizes, len(layers)),
    )


def _term(coefficient: float, factors: Sequence[Factor], layers: tuple[int, ...]) -> Term:
    """Fold constant factors into the coefficient."""
    left = []
    for factor in factors:
        if factor.multiplicity:
            left.append(factor)
        else:
            coefficient *= factor.fixed
    return Term(coefficient, tuple(left), layers)


def fixed_axes(tape: Tape, solution: Solution, tensors: Mapping[str, TensorInfo]) -> list[Fixed]:
    """List the channel axes of weights that cannot shrink, with the reason.

    Args:
        tape: The trace.
        solution: Its components.
        tensors: Parameters and buffers by canonical name.

    Returns:
        One entry for each axis and reason, for the first two axes of weights.
    """
    result = []
    for (name, axis), ids in tape.ranges.items():
        info = tensors[name]
        if not info.is_parameter or axis > 1 or len(info.shape) < 2:
            continue
        blame = solution.blame[solution.component[ids]]
        blame = blame[blame >= 0]
        if not len(blame):
            continue
        for number, count in zip(*np.unique(blame, return_counts=True), strict=True):
            reason = solution.reasons[int(number)]
            result.append(Fixed(what=f"{name}[{axis}]", size=int(count), reason=reason))
    return result
