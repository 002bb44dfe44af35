"""Finds residual branches: what one operand of an addition owns alone, and how it can go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from secateur.structure._structure import Fixed, Layer, Reason, TensorInfo
from secateur.structure._stubs import plan_stubs
from secateur.structure._tape import Node, Tape

_ADDITIONS = {"aten.add", "aten.add_"}
_KEEPS_ZERO = {
    "aten.alias", "aten.celu", "aten.clone", "aten.contiguous", "aten.detach", "aten.div",
    "aten.div_", "aten.dropout", "aten.elu", "aten.elu_", "aten.expand", "aten.gelu",
    "aten.hardswish", "aten.hardswish_", "aten.hardtanh", "aten.hardtanh_", "aten.leaky_relu",
    "aten.leaky_relu_", "aten.mish", "aten.mish_", "aten.native_dropout", "aten.permute",
    "aten.relu", "aten.relu_", "aten.reshape", "aten.roll", "aten.silu", "aten.silu_",
    "aten.slice", "aten.squeeze", "aten.t", "aten.tanh", "aten.transpose", "aten.unsqueeze",
    "aten.view", "aten._to_copy", "aten._unsafe_view",
}  # fmt: skip
_CLOSES = {
    "aten.addmm", "aten.baddbmm", "aten.bmm", "aten.convolution", "aten.linear", "aten.mm",
    "aten.native_batch_norm", "aten._native_batch_norm_legit_no_training",
    "aten.native_layer_norm", "aten.native_group_norm", "aten._fused_rms_norm",
}  # fmt: skip

_VIEWS = {
    "aten.alias", "aten.detach", "aten.expand", "aten.permute", "aten.select", "aten.slice",
    "aten.split", "aten.squeeze", "aten.t", "aten.transpose", "aten.unbind", "aten.unsqueeze",
    "aten.view",
}  # fmt: skip


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


def find_layers(tape: Tape, tensors: Mapping[str, TensorInfo]) -> Found:
    """Find every residual branch of a traced model.

    Args:
        tape: The trace.
        tensors: Parameters and buffers by canonical name.

    Returns:
        Branches that can be removed, and those that cannot.
    """
    readers = _tensor_readers(tape.nodes)
    layers: list[Layer] = []
    nodes: list[frozenset[int]] = []
    additions: list[int] = []
    fixed: list[Fixed] = []
    for branch in _branches(tape, tensors, readers):
        where = tape.nodes[branch.addition]
        closing = _closing(tape, branch, tensors, readers)
        plan = (
            plan_stubs(tape, branch, tensors) if closing else "its end is not an affine operation"
        )
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
    lead = 1 + max((-i for node in tape.nodes for i in node.inputs if i < 0), default=0)
    own = _ancestors(tape, lead)
    users = _users(tape)
    overwritten = _overwritten(tape)
    for node in tape.nodes:
        if node.operation not in _ADDITIONS or len(node.inputs) != 2:
            continue
        a, b = node.inputs
        if a == b or not own[a + lead] & own[b + lead]:
            continue
        sides = []
        for end, skip in ((a, b), (b, a)):
            bits = own[end + lead] & ~own[skip + lead]
            nodes = _only_used_within(tape, bits, node.index, own, users)
            size = _exclusive_parameters(tape, nodes, tensors, readers)
            if size:
                branch = Branch(node.index, end, skip, nodes, node.index in overwritten)
                sides.append((size, branch))
        if sides:
            yield max(sides, key=lambda side: side[0])[1]


def _only_used_within(
    tape: Tape,
    bits: int,
    addition: int,
    own: list[int],
    users: Mapping[int, set[int]],
) -> frozenset[int]:
    """Leave out what others look at, with everything that it depends on.

    Args:
        tape: The trace.
        bits: What an operand of an addition depends on and the other does not.
        addition: The addition.
        own: What each node depends on.
        users: Who reads each node.

    Returns:
        Nodes that nothing but the branch and its addition needs.
    """
    lead = len(own) - len(tape.nodes)
    inside = _members(bits, lead)
    for n in inside:
        is_seen = n < 0 or n in tape.output_nodes
        if is_seen or not users.get(n, set()) <= inside | {addition}:
            bits &= ~own[n + lead]
    return _members(bits, lead)


def _overwritten(tape: Tape) -> set[int]:
    """Find the nodes whose result a later operation overwrites, as it is or through a view."""
    found = set()
    for node in tape.nodes:
        here = node.inputs[0] if node.operation.endswith("_") and node.inputs else -1
        while here >= 0 and here not in found:
            found.add(here)
            before = tape.nodes[here]
            here = before.inputs[0] if before.operation in _VIEWS and before.inputs else -1
    return found


def _ancestors(tape: Tape, lead: int) -> list[int]:
    """Bit sets of everything each node depends on, itself included; inputs come first."""
    own = [1 << i for i in range(lead)]
    for node in tape.nodes:
        bits = 1 << (node.index + lead)
        for i in node.inputs:
            bits |= own[i + lead]
        own.append(bits)
    return own


def _members(bits: int, lead: int) -> frozenset[int]:
    found = []
    while bits:
        low = bits & -bits
        found.append(low.bit_length() - 1 - lead)
        bits ^= low
    return frozenset(found)


def _users(tape: Tape) -> dict[int, set[int]]:
    users: dict[int, set[int]] = {}
    for node in tape.nodes:
        for i in node.inputs:
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
    tape: Tape,
    branch: Branch,
    tensors: Mapping[str, TensorInfo],
    readers: Mapping[str, set[int]],
) -> tuple[str, ...]:
    """Name the parameters of the last affine operation; zeroing them silences the branch."""
    found: list[str] = []
    node = tape.nodes[branch.end]
    while node.index in branch.nodes:
        own = _parameters_of(tape, node, tensors)
        activations = [i for i in node.inputs if i >= 0 and not _stored_names(tape, tape.nodes[i])]
        if node.operation in _CLOSES:
            expected = 2 if "norm" in node.operation and "rms" not in node.operation else 1
            complete = len(own) >= expected
            return tuple(sorted({*found, *own})) if complete else ()
        if node.operation.rstrip("_") == "aten.mul" and own:
            return tuple(sorted({*found, *own}))
        if node.operation in _ADDITIONS and own:
            found += own
        elif node.operation not in _KEEPS_ZERO and node.operation.rstrip("_") != "aten.mul":
            return ()
        inside = [i for i in activations if i in branch.nodes]
        if not inside:
            return ()
        node = tape.nodes[_zero_carrier(tape, inside)]
    return ()


def _zero_carrier(tape: Tape, inside: list[int]) -> int:
    """Of several operands follow the one that was computed from data, not from a factory."""
    return max(inside, key=lambda i: (bool(tape.nodes[i].inputs), i))


def _stored_names(tape: Tape, node: Node) -> tuple[str, ...]:
    """Name the tensors that a node is a view of, where it depends on nothing else."""
    if not node.inputs:
        return node.tensors
    if node.operation not in _VIEWS or node.tensors or len(node.inputs) > 1 or node.inputs[0] < 0:
        return ()
    return _stored_names(tape, tape.nodes[node.inputs[0]])


def _parameters_of(tape: Tape, node: Node, tensors: Mapping[str, TensorInfo]) -> list[str]:
    """Name the parameters a node reads, directly or through layout operations."""
    names = list(node.tensors)
    for i in node.inputs:
        if i >= 0:
            names += _stored_names(tape, tape.nodes[i])
    return [name for name in names if tensors[name].is_parameter]
