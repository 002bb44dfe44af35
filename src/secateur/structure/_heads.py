"""Positions inside heads as units: which reshapes make heads, and what silences a position.

A head is a unit for which two computed tensors are multiplied by itself: a first trace finds these
products and, through the units, the reshapes that make heads. In the trace proper these unite the
heads, so that what varies is the position inside: it leaves all heads alike. A product over such
positions loses a term where one of its factors is zero, as it is once the parameters that make it
are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.structure._closing import Ends
from secateur.structure._label import Ids
from secateur.structure._split import Place, Split
from secateur.structure._structure import Reason, TensorInfo
from secateur.structure._tape import CONSTANT_ID, Product, Tape

_LOUD = (
    "is summed in a product of two computed tensors, and no parameters make one of them zero "
    "there without another"
)


def head_reshapes(tape: Tape, component: NDArray[np.int64]) -> frozenset[Place]:
    """Find the reshapes that split an axis into heads and positions inside.

    Args:
        tape: A trace with heads as units.
        component: Component of every id.

    Returns:
        Places of reshapes that split an axis between units for each of which two computed tensors
        are multiplied.
    """
    is_head = _members(component, tape.multiplied)
    is_head[component[CONSTANT_ID]] = False
    return frozenset(
        split.place
        for split in tape.splits
        if is_head[component[split.label.ids]].any() and _lies_between(split, component)
    )


def _lies_between(split: Split, component: NDArray[np.int64]) -> bool:
    """Tell whether a split lies between units, or makes up one unit, rather than inside units.

    Inside of units lie the pairs of a rotary embedding. One unit are heads that something unites.

    Args:
        split: An axis that was split.
        component: Component of every id.

    Returns:
        False where it only arranges the inside of units.
    """
    found = component[split.label.ids]
    *outer, inner = ((found != found.take([0], axis=axis)).any() for axis in split.axes)
    return not inner and (any(outer) or split.label.axes <= set(split.axes))


def inside_heads(tape: Tape, component: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell which components are positions inside heads.

    Args:
        tape: The trace.
        component: Component of every id.

    Returns:
        Bool ``[components]``.
    """
    places = tape.inside or frozenset()
    found = [split.label.ids for split in tape.splits if split.place in places]
    return _members(component, [*found, *(product.ids for product in tape.products)])


@dataclass(frozen=True, slots=True, eq=False)
class Silence:
    """What becomes of products over units.

    Attributes:
        ids: Slices of parameters that silence the units of a product.
        loud: Units of products that nothing silences, and why they stay.
    """

    ids: Ids
    loud: list[tuple[Ids, Reason]]


def silenced(
    tape: Tape, tensors: Mapping[str, TensorInfo], component: NDArray[np.int64]
) -> Silence:
    """Find what silences the units that products of two computed tensors sum over.

    Args:
        tape: The trace.
        tensors: Parameters and buffers by canonical name.
        component: Component of every id.

    Returns:
        For each product, the slices of the parameters that make one of its factors.
    """
    quiet: list[Ids] = []
    loud: list[tuple[Ids, Reason]] = []
    ends: dict[int, Ends] = {}
    for product in tape.products:
        own = ends.setdefault(id(product.tape), Ends(product.tape, tensors))
        found = next(_slices(tape, own, product, component), None)
        if found is None:
            loud.append((product.ids, product.tape.nodes[product.node].reason(_LOUD)))
        else:
            quiet += found
    return Silence(np.concatenate(quiet) if quiet else np.zeros(0, dtype=np.int64), loud)


def _slices(
    tape: Tape, ends: Ends, product: Product, component: NDArray[np.int64]
) -> Iterator[list[Ids]]:
    """Yield, for each factor that can be silenced unit by unit, the slices that do."""
    everywhere = range(len(product.tape.nodes))
    units = np.unique(component[product.ids])
    for factor in product.factors:
        names = () if factor is None else ends.closing(factor, everywhere)
        found = [_slices_of(tape, name, units, component) for name in sorted(names)]
        if found and all(len(np.unique(component[own])) == len(units) for own in found):
            yield found


def _slices_of(tape: Tape, name: str, units: Ids, component: NDArray[np.int64]) -> Ids:
    """List the ids of one tensor that belong to some units."""
    axes = [ids for (tensor, _), ids in tape.ranges.items() if tensor == name]
    ids = np.concatenate(axes) if axes else np.zeros(0, dtype=np.int64)
    return ids[np.isin(component[ids], units)]


def _members(component: NDArray[np.int64], groups: Sequence[Ids]) -> NDArray[np.bool_]:
    """Tell which components some ids belong to."""
    found = np.zeros(int(component.max()) + 1, dtype=bool)
    for ids in groups:
        found[component[ids]] = True
    return found
