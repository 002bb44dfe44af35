"""How a residual branch leaves the forward: its block becomes the shortcut, or modules go quiet.

Two plans are tried. If everything a block does beside the branch is a chain of its own children
(`shortcut`, then `relu`), the block is replaced by that chain. Otherwise, if the branch consists of
modules only, they are replaced by stand-ins that cost nothing and add zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from secateur.structure._structure import Stub, TensorInfo
from secateur.structure._tape import ModuleCall, Tape

if TYPE_CHECKING:
    from secateur.structure._branches import Branch

_SHAPELESS = {
    "aten.relu", "aten.relu_", "aten.gelu", "aten.silu", "aten.silu_", "aten.tanh", "aten.hardtanh",
    "aten.hardtanh_", "aten.hardswish", "aten.hardswish_", "aten.leaky_relu", "aten.leaky_relu_",
    "aten.native_dropout", "aten.dropout", "aten.clone", "aten.alias", "aten.detach", "aten.elu",
    "aten.mish",
}  # fmt: skip
RELU = "@relu"
"""Name of a ReLU that the block called as a function, among the children of a shortcut."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a branch is cut out.

    Attributes:
        name: Name of the layer.
        stubs: What replaces its modules.
        tensors: What leaves with them.
    """

    name: str
    stubs: tuple[Stub, ...]
    tensors: frozenset[str]


def plan_stubs(tape: Tape, branch: Branch, tensors: Mapping[str, TensorInfo]) -> Plan | str:
    """Decide how a branch can leave the forward.

    Args:
        tape: The trace.
        branch: The branch.
        tensors: Parameters and buffers by canonical name.

    Returns:
        A plan, or why there is none (to follow "the branch stays because").
    """
    index = tape.nodes[branch.addition].call
    call = tape.calls[index]
    if sum(other.path == call.path for other in tape.calls) > 1:
        return "its block runs several times in one forward"
    children = [c for c in tape.calls if c.parent == index]
    plan = _block_becomes_shortcut(tape, branch, call, children, tensors)
    return plan or _modules_go_quiet(tape, branch, index, children, tensors)


def _block_becomes_shortcut(
    tape: Tape,
    branch: Branch,
    call: ModuleCall,
    children: list[ModuleCall],
    tensors: Mapping[str, TensorInfo],
) -> Plan | None:
    if not call.path or call.returns_tuple or call.num_arguments != 1 or len(call.inputs) != 1:
        return None
    left = _working(tape, call) - branch.nodes - {branch.addition}
    kept: list[str] = []
    here = call.inputs[0]
    for child in children:
        nodes = _working(tape, child)
        if nodes <= branch.nodes:
            continue
        here = branch.addition if here == branch.skip else here
        name = child.path.removeprefix(f"{call.path}.")
        if (
            "." in name
            or child.inputs != (here,)
            or child.num_arguments != 1
            or child.returns_tuple
        ):
            return None
        kept.append(name)
        left -= nodes
        here = child.outputs[0]
    here = branch.addition if here == branch.skip else here
    if len(left) == 1 and tape.nodes[min(left)].operation in ("aten.relu", "aten.relu_"):
        node = tape.nodes[left.pop()]
        if node.inputs == (here,):
            kept.append(RELU)
            here = node.index
    if left or here != call.outputs[0] or (branch.overwritten and not kept):
        return None
    outside = [f"{call.path}.{name}." for name in kept]
    gone = _below(tensors, [call.path], outside)
    stub = Stub(module=call.path, kind="shortcut" if kept else "identity", children=tuple(kept))
    return Plan(call.path, (stub,), gone)


def _modules_go_quiet(
    tape: Tape,
    branch: Branch,
    index: int,
    children: list[ModuleCall],
    tensors: Mapping[str, TensorInfo],
) -> Plan | str:
    inside = [c for c in children if _working(tape, c) & branch.nodes]
    if any(not _working(tape, c) <= branch.nodes for c in inside):
        return "a module of the branch also works for something else"
    covered = {n for c in inside for n in range(c.start, c.stop)}
    loose = [tape.nodes[n] for n in branch.nodes - covered]
    if any(node.call != index or node.operation not in _SHAPELESS for node in loose):
        return "it is not made of modules alone"
    if any(
        i not in branch.nodes and i != branch.skip
        for n in branch.nodes
        for i in tape.nodes[n].inputs
        if i < 0 or tape.nodes[i].inputs
    ):
        return "it reads more than the stream it adds to"
    learned = [c for c in inside if _below(tensors, [c.path], ())]
    if not learned:
        return "no module of it owns its parameters"
    closing = learned[-1]
    counts = [sum(other.path == c.path for other in tape.calls) for c in learned]
    if max(counts) > 1:
        return "one of its modules runs several times in one forward"
    if any(c.returns_tuple for c in learned[:-1]) or any(not c.inputs for c in learned):
        return "its modules pass on more than one tensor"
    if tape.nodes[branch.end].shape != tape.nodes[branch.addition].shape:
        return "its result is broadcast when it is added"
    output = None
    if closing.returns_tuple:
        places = [i for i, node in enumerate(closing.outputs) if node is not None]
        if len(places) != 1:
            return "its last module returns several tensors"
        if closing.returns_values:
            return "its last module returns values beside its tensor"
        output = (places[0], len(closing.outputs))
    stubs = [Stub(module=c.path, kind="identity") for c in learned[:-1]]
    if stubs and _overwrites(tape, branch, learned):
        stubs[0] = Stub(module=learned[0].path, kind="zero")
    stubs.append(Stub(module=closing.path, kind="zero", output=output))
    gone = _below(tensors, [c.path for c in learned], ())
    return Plan(closing.path, tuple(stubs), gone)


def _overwrites(tape: Tape, branch: Branch, learned: list[ModuleCall]) -> bool:
    """Tell whether something that stays overwrites its input, which would then be the stream."""
    replaced = {n for c in learned for n in range(c.start, c.stop)}
    return any(tape.nodes[n].operation.endswith("_") for n in branch.nodes - replaced)


def _working(tape: Tape, call: ModuleCall) -> set[int]:
    """Nodes of a call that read something; scratch tensors that kernels ask for do not count."""
    nodes = (tape.nodes[n] for n in range(call.start, call.stop))
    return {node.index for node in nodes if node.inputs or node.tensors}


def _below(
    tensors: Mapping[str, TensorInfo], modules: Iterable[str], outside: Iterable[str]
) -> frozenset[str]:
    """Name the tensors all of whose names lie below some modules and not below others."""
    inner = tuple(f"{path}." for path in modules)
    outer = tuple(outside)
    return frozenset(
        name
        for name, info in tensors.items()
        if all(a.startswith(inner) and not (outer and a.startswith(outer)) for a in info.aliases)
    )
