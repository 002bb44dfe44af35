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
from secateur.structure._tape import ModuleCall, Node, Tape

if TYPE_CHECKING:
    from secateur.structure._branches import Branch

_SHAPELESS = {
    "aten.relu", "aten.relu_", "aten.gelu", "aten.silu", "aten.silu_", "aten.tanh", "aten.hardtanh",
    "aten.hardtanh_", "aten.hardswish", "aten.hardswish_", "aten.leaky_relu", "aten.leaky_relu_",
    "aten.native_dropout", "aten.dropout", "aten.clone", "aten.alias", "aten.detach", "aten.elu",
    "aten.mish",
}  # fmt: skip
_KEEPS_ZERO = {
    "alias", "celu", "clone", "constant_pad_nd", "contiguous", "detach", "div",
    "dropout", "elu", "expand", "flip", "gelu", "hardswish", "hardtanh", "leaky_relu", "mish",
    "mul", "native_dropout", "permute", "relu", "reshape", "roll", "select", "silu", "slice",
    "squeeze", "t", "tanh", "transpose", "unsqueeze", "view", "_to_copy", "_unsafe_view",
}  # fmt: skip
"""Operations, in place or not, that return zeros for zeros."""
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
    learned = [c for c in inside if _below(tensors, [c.path], ())]
    if not learned:
        return "no module of it owns its parameters"
    covered = {n for c in inside for n in range(c.start, c.stop)}
    loose = [tape.nodes[n] for n in branch.nodes - covered]
    obstacle = (
        _unfit_module(tape, learned)
        or _unfit_reading(tape, branch, learned)
        or _unfit_rest(tape, branch, index, learned, loose)
    )
    if obstacle:
        return obstacle
    closing = learned[-1]
    output = None
    if closing.returns_tuple:
        places = [i for i, node in enumerate(closing.outputs) if node is not None]
        output = (places[0], len(closing.outputs))
    stubs = [Stub(module=c.path, kind="identity") for c in learned[:-1]]
    if stubs and _overwrites(tape, branch, learned):
        stubs[0] = Stub(module=learned[0].path, kind="zero")
    stubs.append(Stub(module=closing.path, kind="zero", output=output))
    gone = _below(tensors, [c.path for c in learned], ())
    return Plan(closing.path, tuple(stubs), gone)


def _unfit_module(tape: Tape, learned: list[ModuleCall]) -> str | None:
    """Say why modules cannot be replaced by stand-ins that hand on their first argument."""
    paths = {c.path for c in learned}
    if sum(other.path in paths for other in tape.calls) > len(learned):
        return "one of its modules runs several times in one forward"
    if any(c.returns_tuple for c in learned[:-1]) or any(not c.inputs for c in learned):
        return "its modules pass on more than one tensor"
    closing = learned[-1]
    if sum(node is not None for node in closing.outputs) != 1:
        return "its last module returns several tensors"
    if closing.returns_values:
        return "its last module returns values beside its tensor"
    return None


def _unfit_reading(tape: Tape, branch: Branch, learned: list[ModuleCall]) -> str | None:
    """Modules may be given more than the stream, as long as the stream comes first."""
    within = {n for c in learned for n in range(c.start, c.stop)}
    reads = {i for n in branch.nodes - within for i in tape.nodes[n].inputs}
    reads |= {c.inputs[0] for c in learned if c.inputs[0] is not None}
    strange = reads - branch.nodes - {branch.skip}
    if any(i < 0 or tape.nodes[i].inputs for i in strange):
        return "it reads more than the stream it adds to"
    return None


def _unfit_rest(
    tape: Tape, branch: Branch, index: int, learned: list[ModuleCall], loose: list[Node]
) -> str | None:
    """Say why the operations between the modules cannot run on what the stand-ins return."""
    if tape.nodes[branch.end].shape != tape.nodes[branch.addition].shape:
        return "its result is broadcast when it is added"
    if any(node.call != index for node in loose):
        return "it is not made of modules alone"
    if all(node.operation in _SHAPELESS for node in loose):
        return None
    if not all(_keeps_shape(tape, c) for c in learned):
        return "it is not made of modules alone, and one of them changes the shape"
    if not _stays_zero(branch, learned[-1], loose):
        return "operations behind its last module do not keep zeros"
    return None


def _keeps_shape(tape: Tape, call: ModuleCall) -> bool:
    """Tell whether what a module returns is shaped like its first argument."""
    source = call.inputs[0]
    result = next(node for node in call.outputs if node is not None)
    if source is None or source < 0 or result < 0:
        return False
    return tape.nodes[source].shape == tape.nodes[result].shape


def _stays_zero(branch: Branch, closing: ModuleCall, loose: list[Node]) -> bool:
    """Tell whether the branch's end is zero wherever its last module returned zeros."""
    zero = {node for node in closing.outputs if node is not None}
    for node in sorted(loose, key=lambda node: node.index):
        if zero.isdisjoint(node.inputs):
            continue
        plain = node.operation.removeprefix("aten.").rstrip("_")
        if plain == "div" and node.inputs[0] not in zero:
            return False
        if plain not in _KEEPS_ZERO:
            return False
        zero.add(node.index)
    return branch.end in zero


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
