"""How a residual branch leaves the forward: its block becomes the shortcut, or modules go quiet.

Two plans are tried. If everything a block does beside the branch is a chain of its own children
(`shortcut`, then `relu`), the block is replaced by that chain. Otherwise, if the branch consists of
modules only, they are replaced by stand-ins that cost nothing and add zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from secateur.structure._calls import Calls
from secateur.structure._label import Label
from secateur.structure._module_call import Given, ModuleCall
from secateur.structure._silence import ADDITIONS, KEEPS_ZERO, PLAIN, SHAPELESS
from secateur.structure._structure import Stub
from secateur.structure._tape import Node, Tape

if TYPE_CHECKING:
    from secateur.structure._branches import Branch

_CONSULTED = "code outside of one of its modules reads tensors or modules from it"
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


def plan_stubs(tape: Tape, branch: Branch, calls: Calls, unit: NDArray[np.int64]) -> Plan | str:
    """Decide how a branch can leave the forward.

    Args:
        tape: The trace.
        branch: The branch.
        calls: Its module calls.
        unit: Component of every id, turned negative where it is fixed.

    Returns:
        A plan, or why there is none (to follow "the branch stays because").
    """
    index = tape.nodes[branch.addition].call
    if not calls.runs_once(tape.calls[index]):
        return "its block runs several times in one forward"
    plan = _block_becomes_shortcut(tape, branch, calls)
    if plan is None or _is_consulted(tape, plan):
        quiet = _modules_go_quiet(tape, branch, calls, unit)
        return _CONSULTED if isinstance(quiet, Plan) and _is_consulted(tape, quiet) else quiet
    return plan


def _is_consulted(tape: Tape, plan: Plan) -> bool:
    """Tell whether code elsewhere reads from a module that would be replaced."""
    return any(stub.module in tape.consulted for stub in plan.stubs)


def _block_becomes_shortcut(tape: Tape, branch: Branch, calls: Calls) -> Plan | None:
    index = tape.nodes[branch.addition].call
    call = tape.calls[index]
    if not call.path or call.returns_tuple or call.first is None:
        return None
    left = calls.working(call) - branch.nodes - {branch.addition}
    kept: list[str] = []
    here = call.first[0]
    for child in calls.children(index):
        nodes = calls.working(child)
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
    if len(set(kept)) < len(kept):
        return None  # a module that runs twice has one place among the children
    gone = calls.tensors_below([call.path], [f"{call.path}.{name}" for name in kept])
    stub = Stub(module=call.path, kind="shortcut" if kept else "identity", children=tuple(kept))
    return Plan(call.path, (stub,), gone)


def _fits(end: Node, addition: Node) -> bool:
    """Tell whether what is added has the shape of the sum, or rows of that shape."""
    by_rows = addition.operation.rstrip("_") == "aten.index_add"
    return end.shape[by_rows:] == addition.shape[by_rows:]


def _modules_go_quiet(
    tape: Tape, branch: Branch, calls: Calls, unit: NDArray[np.int64]
) -> Plan | str:
    """Replace the modules of a branch; what else it runs goes on running, on other data."""
    learned = [c for c in calls.within(branch.nodes) if calls.tensors_below([c.path])]
    if not learned:
        return "no module of it owns its parameters"
    if not all(calls.runs_once(c) for c in learned):
        return "one of its modules runs several times in one forward"
    if any(c.first is None for c in learned):
        return "one of its modules is not given a tensor first"
    if not _fits(tape.nodes[branch.end], tape.nodes[branch.addition]):
        return "its result is broadcast when it is added"
    outputs = [_output_of(c, calls) for c in learned]
    problem = next((o for o in outputs if isinstance(o, str)), None)
    if problem:
        return problem
    places = [None if isinstance(o, str) else o for o in outputs]
    if _Rest(tape, branch, learned, calls, unit, num_silent=1).problem():
        # What ends in a sum of several modules is silent once all of them are.
        problem = _Rest(tape, branch, learned, calls, unit, num_silent=len(learned)).problem()
        silent = [True] * len(learned)
    else:
        silent = [*(place is not None for place in places[:-1]), True]
        silent[0] |= _overwrites(tape, branch, learned)
    if problem:
        return problem
    stubs = tuple(
        Stub(module=c.path, kind="zero" if is_silent else "identity", output=place)
        for c, is_silent, place in zip(learned, silent, places, strict=True)
    )
    return Plan(learned[-1].path, stubs, calls.tensors_below([c.path for c in learned]))


def _output_of(call: ModuleCall, calls: Calls) -> tuple[int, int] | str | None:
    """Say where a module's one tensor stands in what it returns; None where it returns that."""
    if not call.returns_tuple:
        return None if call.outputs[0] is not None else "one of its modules returns no tensor"
    nodes = enumerate(call.outputs)
    places = [i for i, node in nodes if node is not None and calls.is_read(node, call)]
    if len(places) != 1:
        return "one of its modules returns several tensors"
    if call.returns_values:
        return "one of its modules returns values beside its tensor"
    return places[0], len(call.outputs)


class _Rest:
    """What a branch still runs once its modules are replaced.

    Args:
        tape: The trace.
        branch: The branch.
        learned: Calls that are replaced, in order.
        calls: All calls.
        unit: Component of every id, turned negative where it is fixed.
        num_silent: How many of the last calls have to return zeros.
    """

    def __init__(
        self,
        tape: Tape,
        branch: Branch,
        learned: list[ModuleCall],
        calls: Calls,
        unit: NDArray[np.int64],
        *,
        num_silent: int,
    ) -> None:
        self._tape = tape
        self._calls = calls
        self._unit = unit
        self._end = branch.end
        self._learned = learned
        self._num_silent = num_silent
        replaced = {n for c in learned for n in range(c.start, c.stop)}
        self._nodes = sorted(branch.nodes - replaced)
        self._changed: dict[int, Given] = {}
        self._zero: set[int] = set()

    def problem(self) -> str | None:
        """Follow shapes and zeros through the branch.

        Returns:
            Why it would not run or would not end in zeros of the right shape, or None.
        """
        waiting = list(self._learned)
        for n in [*self._nodes, len(self._tape.nodes)]:
            while waiting and waiting[0].start <= n:
                call = waiting.pop(0)
                if not self._replace(call, is_silent=len(waiting) < self._num_silent):
                    return "its modules stand in different places of the stream"
            if n == len(self._tape.nodes):
                break
            if n in self._calls.charged:
                return "it multiplies outside of its modules, which would go on"
            if not self._runs(self._tape.nodes[n]):
                return "it is not made of modules alone"
        return None if self._end in self._zero else "its last module is not its end"

    def _replace(self, call: ModuleCall, *, is_silent: bool) -> bool:
        """Let a stand-in return its first argument, or zeros of that shape."""
        assert call.first is not None
        new = call.first
        if new.node is not None:
            new = self._changed.get(new.node, new)
        for out, labels in zip(call.outputs, call.output_labels, strict=True):
            if out is None or not self._calls.is_read(out, call):
                continue
            alike = new.shape == self._tape.nodes[out].shape and self._same_units(
                new.labels, labels
            )
            if is_silent:
                self._zero.add(out)
            if not alike and call is self._learned[-1]:
                return False
            if not alike:
                self._changed[out] = new
        return True

    def _same_units(self, given: tuple[Label, ...], made: tuple[Label, ...]) -> bool:
        """Tell whether the same units run along the axes: what is as large may shrink otherwise."""
        a, b = (
            {x.axes: np.maximum(self._unit[x.ids], -1) for x in labels} for labels in (given, made)
        )
        return all(
            np.array_equal(a[axes], b[axes])
            if axes in a and axes in b
            else bool(((a if axes in a else b)[axes] < 0).all())
            for axes in a.keys() | b.keys()
        )

    def _runs(self, node: Node) -> bool:
        """Tell whether an operation that stays can work on what it is given now."""
        given = [self._changed.get(i) for i in node.inputs]
        new = next((one for one in given if one is not None), None)
        if new is not None:
            alone = node.operation in SHAPELESS and len(given) == 1
            alike = node.operation in PLAIN and len(given) == node.num_operands
            if not (alone or alike) or any(one is not new for one in given):
                return False
            self._changed[node.index] = new
        silent = [i in self._zero for i in node.inputs]
        product = node.operation.rstrip("_") == "aten.mul" and any(silent)
        added = node.operation in ADDITIONS and len(silent) == node.num_operands > 1
        if (
            product
            or (added and all(silent))
            or (node.operation in KEEPS_ZERO and silent[:1] == [True])
        ):
            self._zero.add(node.index)
        return True


def _overwrites(tape: Tape, branch: Branch, learned: list[ModuleCall]) -> bool:
    """Tell whether something that stays overwrites its input, which would then be the stream."""
    replaced = {n for c in learned for n in range(c.start, c.stop)}
    return any(tape.nodes[n].operation.endswith("_") for n in branch.nodes - replaced)
