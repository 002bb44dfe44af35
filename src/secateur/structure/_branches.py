"""Finds residual branches: what one operand of an addition owns alone, and how it can go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.structure._ancestry import own_ancestors
from secateur.structure._calls import Calls, needed_nodes
from secateur.structure._closing import Ends
from secateur.structure._silence import ADDITIONS, VIEWS
from secateur.structure._structure import Fixed, Layer, TensorInfo
from secateur.structure._stubs import Plan, plan_stubs
from secateur.structure._tape import Node, Tape

_NO_END = "its end is not an affine operation"
_SHARED_END = "what silences it is used elsewhere, too"
_SHARED = "no module outside of the removable layers holds a parameter it shares with another"
_KEEPS = (
    "it keeps tensors for the model's next call, such as keys and values in a cache, which an "
    "example that switches the cache off would avoid"
)


@dataclass(frozen=True, slots=True)
class Branch:
    """One operand of an addition with everything only it needs.

    Attributes:
        addition: Node of the addition.
        end: Node whose result is the branch's contribution.
        skip: Node of the other operand.
        nodes: Nodes that nothing else needs.
        overwritten: Whether the sum is overwritten in place later on.
    """

    addition: int
    end: int
    skip: int
    nodes: frozenset[int]
    overwritten: bool


@dataclass(frozen=True, slots=True)
class Found:
    """Removable layers with their nodes, and branches that have to stay.

    Attributes:
        layers: Removable layers in execution order.
        nodes: Nodes each of them takes along.
        additions: The addition that each of them ends in.
        fixed: Branches that cannot go, with the reason.
    """

    layers: tuple[Layer, ...]
    nodes: tuple[frozenset[int], ...]
    additions: tuple[int, ...]
    fixed: tuple[Fixed, ...]


_Planned = tuple[Branch, tuple[str, ...], Plan]
"""A branch, the parameters that silence it, and how it goes."""


def find_layers(tape: Tape, tensors: Mapping[str, TensorInfo], unit: NDArray[np.int64]) -> Found:
    """Find every residual branch of a traced model.

    Args:
        tape: The trace.
        tensors: Parameters and buffers by canonical name.
        unit: Component of every id, turned negative where it is fixed.

    Returns:
        Branches that can be removed, and those that cannot.
    """
    readers = _tensor_readers(tape.nodes)
    calls, ends = Calls(tape, tensors), Ends(tape, tensors)
    planned: list[_Planned] = []
    fixed: list[Fixed] = []

    def planned_for(branch: Branch) -> _Planned | str:
        """Plan how a branch goes, or say why it stays."""
        closing = tuple(sorted(ends.closing(branch.end, branch.nodes)))
        if not branch.nodes.isdisjoint(tape.kept_nodes):
            return _KEEPS
        if any(not readers[name] <= branch.nodes for name in closing):
            return _SHARED_END
        plan = plan_stubs(tape, branch, calls, unit) if closing else _NO_END
        return plan if isinstance(plan, str) else (branch, closing, plan)

    for sides in _branches(tape, tensors, readers):
        tried = [planned_for(branch) for branch in sides]
        chosen = next((found for found in tried if not isinstance(found, str)), None)
        if chosen is not None:
            planned.append(chosen)
        else:
            fixed.append(_stays(tape, sides[0], str(tried[0])))
    gone = _Gone(plan for _, _, plan in planned)
    layers: list[Layer] = []
    nodes: list[frozenset[int]] = []
    additions: list[int] = []
    for branch, closing, plan in planned:
        if any(gone.holds(name) for name in _shared(tape, branch, readers)):
            fixed.append(_stays(tape, branch, _SHARED))
            continue
        count = sum(layer.name.partition("#")[0] == plan.name for layer in layers) + 1
        name = plan.name if count == 1 else f"{plan.name}#{count}"
        layers.append(Layer(name=name, closing=closing, tensors=plan.tensors, stubs=plan.stubs))
        nodes.append(branch.nodes)
        additions.append(branch.addition)
    return Found(tuple(layers), tuple(nodes), tuple(additions), tuple(fixed))


def _stays(tape: Tape, branch: Branch, why: str) -> Fixed:
    """Say why a branch stays."""
    where = tape.nodes[branch.addition]
    reason = where.reason(f"the branch stays because {why}")
    return Fixed(what=f"branch in {where.module or 'the model'}", size=1, reason=reason)


class _Gone:
    """The modules that may leave with some layer or other.

    Args:
        plans: How each layer leaves.
    """

    def __init__(self, plans: Iterable[Plan]) -> None:
        stubs = [stub for plan in plans for stub in plan.stubs]
        self._gone = tuple(f"{stub.module}." for stub in stubs)
        self._kept = tuple(f"{stub.module}.{name}." for stub in stubs for name in stub.children)

    def holds(self, tensor: str) -> bool:
        """Tell whether the module that a tensor is first named after may leave."""
        return tensor.startswith(self._gone) and not tensor.startswith(self._kept)


def _shared(tape: Tape, branch: Branch, readers: Mapping[str, set[int]]) -> set[str]:
    """Name what a branch reads and others do, too."""
    names = {name for n in branch.nodes if n >= 0 for name in tape.nodes[n].tensors}
    return {name for name in names if not readers[name] <= branch.nodes}


def _tensor_readers(nodes: Iterable[Node]) -> dict[str, set[int]]:
    readers: dict[str, set[int]] = {}
    for node in nodes:
        for name in node.tensors:
            readers.setdefault(name, set()).add(node.index)
    return readers


def _branches(
    tape: Tape, tensors: Mapping[str, TensorInfo], readers: Mapping[str, set[int]]
) -> Iterator[list[Branch]]:
    """Yield, for every addition, the operands that own parameters alone, the larger one first."""
    users = _users(tape)
    overwritten = _overwritten(tape)
    for node in tape.nodes:
        a, b = _addends(node)
        own = own_ancestors(tape.nodes, a, b) if a != b else None
        if own is None:
            continue
        sides = []
        for end, skip, alone in ((a, b, own[0]), (b, a, own[1])):
            nodes = _only_used_within(tape, alone, node.index, users)
            size = _exclusive_parameters(tape, nodes, tensors, readers)
            if size:
                branch = Branch(node.index, end, skip, nodes, node.index in overwritten)
                sides.append((size, branch))
        if sides:
            yield [branch for _, branch in sorted(sides, key=lambda side: -side[0])]


def _addends(node: Node) -> tuple[int, int]:
    """Return what an operation adds, whole or by rows; twice -1 where it does something else."""
    if node.operation in ADDITIONS and len(node.inputs) == 2:
        return node.inputs[0], node.inputs[1]
    if node.operation.rstrip("_") == "aten.index_add" and len(node.inputs) == 3:
        return node.inputs[0], node.inputs[2]
    return -1, -1


def _only_used_within(
    tape: Tape, nodes: frozenset[int], addition: int, users: Mapping[int, set[int]]
) -> frozenset[int]:
    """Leave out what others look at, with everything that it depends on.

    Args:
        tape: The trace.
        nodes: What an operand of an addition depends on and the other does not.
        addition: The addition.
        users: Who reads each node.

    Returns:
        Nodes that nothing but the branch and its addition needs.
    """
    inside = {addition}
    for n in sorted(nodes, reverse=True):
        if n not in tape.output_nodes and users.get(n, set()) <= inside:
            inside.add(n)
    return frozenset(inside - {addition})


def _overwritten(tape: Tape) -> set[int]:
    """Find the nodes whose result a later operation overwrites, as it is or through a view."""
    found = set()
    for node in tape.nodes:
        here = node.inputs[0] if node.operation.endswith("_") and node.inputs else -1
        while here >= 0 and here not in found:
            found.add(here)
            before = tape.nodes[here]
            here = before.inputs[0] if before.operation in VIEWS and before.inputs else -1
    return found


def _users(tape: Tape) -> dict[int, set[int]]:
    """Say who reads each node, leaving out what no result needs."""
    users: dict[int, set[int]] = {}
    needed = needed_nodes(tape)
    for node in tape.nodes:
        for i in node.inputs if node.index in needed else ():
            users.setdefault(i, set()).add(node.index)
    return users


def _exclusive_parameters(
    tape: Tape,
    nodes: frozenset[int],
    tensors: Mapping[str, TensorInfo],
    readers: Mapping[str, set[int]],
) -> int:
    """Count the parameters that only these nodes read."""
    names = {name for n in nodes if n >= 0 for name in tape.nodes[n].tensors}
    total = 0
    for name in names:
        if tensors[name].is_parameter and readers[name] <= nodes:
            size = 1
            for n in tensors[name].shape:
                size *= n
            total += size
    return total
