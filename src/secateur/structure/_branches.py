"""Finds residual branches: what one operand of an addition owns alone, and how it can go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secateur.structure._ancestry import own_ancestors
from secateur.structure._calls import Calls, needed_nodes
from secateur.structure._silence import KEEPS_ZERO, VIEWS
from secateur.structure._structure import Fixed, Layer, Reason, TensorInfo
from secateur.structure._stubs import plan_stubs
from secateur.structure._tape import Node, Tape

_ADDITIONS = {"aten.add", "aten.add_"}
_COPIES = {"aten._to_copy", "aten.clone"}
_CLOSES = {
    "aten.addmm", "aten.baddbmm", "aten.bmm", "aten.convolution", "aten.linear", "aten.mm",
    "aten.native_batch_norm", "aten._native_batch_norm_legit_no_training",
    "aten.native_layer_norm", "aten.native_group_norm", "aten._fused_rms_norm", "aten._grouped_mm",
}  # fmt: skip

_JOINS = {"aten.cat", "aten.concat", "aten.stack"}

_NO_END = "its end is not an affine operation"
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
    calls = Calls(tape, tensors)
    layers: list[Layer] = []
    nodes: list[frozenset[int]] = []
    additions: list[int] = []
    fixed: list[Fixed] = []
    for branch in _branches(tape, tensors, readers):
        where = tape.nodes[branch.addition]
        closing = _closing(tape, branch, tensors, branch.end)
        plan = plan_stubs(tape, branch, calls, unit) if closing else _NO_END
        if not branch.nodes.isdisjoint(tape.kept_nodes):
            plan = _KEEPS
        if isinstance(plan, str):
            reason = Reason(
                message=f"the branch stays because {plan}",
                module=where.module,
                operation=where.operation,
                source=f"{where.file}:{where.line}",
            )
            fixed.append(
                Fixed(what=f"branch in {where.module or 'the model'}", size=1, reason=reason)
            )
            continue
        layers.append(
            Layer(name=plan.name, closing=closing, tensors=plan.tensors, stubs=plan.stubs)
        )
        nodes.append(branch.nodes)
        additions.append(branch.addition)
    return Found(tuple(layers), tuple(nodes), tuple(additions), tuple(fixed))


def _tensor_readers(nodes: Iterable[Node]) -> dict[str, set[int]]:
    readers: dict[str, set[int]] = {}
    for node in nodes:
        for name in node.tensors:
            readers.setdefault(name, set()).add(node.index)
    return readers


def _branches(
    tape: Tape, tensors: Mapping[str, TensorInfo], readers: Mapping[str, set[int]]
) -> Iterator[Branch]:
    """Yield, for every addition, the operand that owns parameters alone (the larger of two)."""
    users = _users(tape)
    overwritten = _overwritten(tape)
    for node in tape.nodes:
        if node.operation not in _ADDITIONS or len(node.inputs) != 2:
            continue
        a, b = node.inputs
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
            yield max(sides, key=lambda side: side[0])[1]


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
    """Count the parameters that only these nodes read; 0 where one is shared with others."""
    names = {name for n in nodes if n >= 0 for name in tape.nodes[n].tensors}
    if any(not readers[name] <= nodes for name in names):
        return 0
    total = 0
    for name in names:
        if tensors[name].is_parameter:
            size = 1
            for n in tensors[name].shape:
                size *= n
            total += size
    return total


def _closing(
    tape: Tape, branch: Branch, tensors: Mapping[str, TensorInfo], end: int
) -> tuple[str, ...]:
    """Name the parameters of the last affine operation; zeroing them silences the branch."""
    found: list[str] = []
    node = tape.nodes[end]
    while node.index in branch.nodes:
        own = _parameters_of(tape, node, tensors)
        is_product = node.operation.rstrip("_") == "aten.mul"
        if node.operation in _CLOSES:
            expected = 2 if "norm" in node.operation and "rms" not in node.operation else 1
            computed = [i for i in node.inputs if i < 0 or not _stored_names(tape, tape.nodes[i])]
            # A grouped product is also told where its groups end.
            allowed = 2 if node.operation == "aten._grouped_mm" else 1
            complete = len(own) >= expected and len(computed) <= allowed
            return tuple(sorted({*found, *own})) if complete else ()
        if is_product and own:
            return tuple(sorted({*found, *own}))
        if node.operation in _JOINS:
            return _closing_of_parts(tape, branch, tensors, node, found)
        if node.operation in _ADDITIONS and own:
            found += own
        elif node.operation not in KEEPS_ZERO and not is_product:
            return ()
        inside = _carriers(tape, branch, node)
        if not inside:
            return ()
        for factor in inside[1:] if is_product else ():
            rest = _closing(tape, branch, tensors, factor)
            if rest:
                return tuple(sorted({*found, *rest}))
        node = tape.nodes[inside[0]]
    return ()


def _closing_of_parts(
    tape: Tape,
    branch: Branch,
    tensors: Mapping[str, TensorInfo],
    node: Node,
    found: list[str],
) -> tuple[str, ...]:
    """Name what silences every part of a concatenation; nothing where one part has no end."""
    parts = [_closing(tape, branch, tensors, i) for i in node.inputs]
    if node.tensors or not all(parts):
        return ()
    return tuple(sorted({*found, *(name for part in parts for name in part)}))


def _carriers(tape: Tape, branch: Branch, node: Node) -> list[int]:
    """List the operands that belong to a branch; first what was computed from data, and late.

    An operation that is no product or sum works on its first operand; others say where, or how far.

    Args:
        tape: The trace.
        branch: The branch.
        node: One of its nodes.

    Returns:
        Indices of nodes.
    """
    activations = [i for i in node.inputs if i >= 0 and not _stored_names(tape, tape.nodes[i])]
    inside = [i for i in activations if i in branch.nodes]
    if node.operation in KEEPS_ZERO and node.inputs[0] in inside:
        return [node.inputs[0]]
    return sorted(inside, key=lambda i: (bool(tape.nodes[i].inputs), i), reverse=True)


def _stored_names(tape: Tape, node: Node) -> tuple[str, ...]:
    """Name the tensor that a node is a view of, in whatever type; zeros in it are zeros here."""
    if node.operation not in VIEWS | _COPIES or len(node.inputs) + len(node.tensors) != 1:
        return ()
    if node.tensors:
        return node.tensors
    if node.inputs[0] < 0:
        return ()
    return _stored_names(tape, tape.nodes[node.inputs[0]])


def _parameters_of(tape: Tape, node: Node, tensors: Mapping[str, TensorInfo]) -> list[str]:
    """Name the parameters a node reads, directly or through layout operations."""
    names = list(node.tensors)
    for i in node.inputs:
        if i >= 0:
            names += _stored_names(tape, tape.nodes[i])
    return [name for name in names if tensors[name].is_parameter]
