"""Module calls of a trace, indexed so that planning one branch does not look at all others."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import accumulate

from secateur.structure._module_call import ModuleCall
from secateur.structure._structure import TensorInfo
from secateur.structure._tape import Tape


class Calls:
    """The calls of a trace by parent, and the tensors by module.

    Args:
        tape: The trace.
        tensors: Parameters and buffers by canonical name.

    Attributes:
        charged: Nodes that cost MACs.
    """

    def __init__(self, tape: Tape, tensors: Mapping[str, TensorInfo]) -> None:
        self._tape = tape
        self._tensors = tensors
        self._counts = Counter(call.path for call in tape.calls)
        self._children: dict[int, list[ModuleCall]] = {}
        for call in tape.calls:
            self._children.setdefault(call.parent, []).append(call)
        self.charged = frozenset(charge.node for charge in tape.charges)
        self._last_reader = {i: node.index for node in tape.nodes for i in node.inputs}
        needed = needed_nodes(tape)
        self._works = [
            node.index in needed and bool(node.inputs or node.tensors) for node in tape.nodes
        ]
        self._num_before = [0, *accumulate(self._works)]
        self._below: dict[str, list[str]] = {}
        for name, info in tensors.items():
            for alias in info.aliases:
                owner = alias.rpartition(".")[0]
                while owner:
                    self._below.setdefault(owner, []).append(name)
                    owner = owner.rpartition(".")[0]

    def children(self, call: int) -> list[ModuleCall]:
        """Return the calls that a call made, in order."""
        return self._children.get(call, [])

    def runs_once(self, call: ModuleCall) -> bool:
        """Tell whether a module was called once only."""
        return self._counts[call.path] == 1

    def working(self, call: ModuleCall) -> set[int]:
        """Nodes of a call that the model's results need and that read something."""
        return {n for n in range(call.start, call.stop) if self._works[n]}

    def within(self, nodes: Iterable[int]) -> list[ModuleCall]:
        """Find the outermost calls that work for some nodes only.

        Args:
            nodes: Indices of nodes.

        Returns:
            Calls that do not contain each other, in order.
        """
        own = sorted(n for n in nodes if self._works[n])
        found: dict[int, ModuleCall] = {}
        for n in own:
            outermost, here = -1, self._tape.nodes[n].call
            while here >= 0 and self._is_among(self._tape.calls[here], own):
                outermost, here = here, self._tape.calls[here].parent
            if outermost >= 0:
                found[outermost] = self._tape.calls[outermost]
        return list(found.values())

    def _is_among(self, call: ModuleCall, nodes: list[int]) -> bool:
        inside = bisect_left(nodes, call.stop) - bisect_left(nodes, call.start)
        return inside == self._num_before[call.stop] - self._num_before[call.start]

    def is_read(self, node: int, call: ModuleCall) -> bool:
        """Tell whether anything outside of a call looks at a result of it."""
        is_used = self._last_reader.get(node, -1) >= call.stop
        return is_used or node in self._tape.output_nodes | self._tape.kept_nodes

    def tensors_below(self, modules: Iterable[str], outside: Iterable[str] = ()) -> frozenset[str]:
        """Name the tensors all of whose names lie below some modules and not below others.

        Args:
            modules: Paths of modules.
            outside: Paths of modules whose tensors do not count.

        Returns:
            Canonical names.
        """
        paths = tuple(modules)
        inner = tuple(f"{path}." for path in paths)
        outer = tuple(f"{path}." for path in outside)
        candidates = {name for path in paths for name in self._below.get(path, ())}
        return frozenset(
            name
            for name in candidates
            if all(
                a.startswith(inner) and not (outer and a.startswith(outer))
                for a in self._tensors[name].aliases
            )
        )


def needed_nodes(tape: Tape) -> set[int]:
    """Find the nodes that results depend on; what is written in place always counts.

    Args:
        tape: The trace.

    Returns:
        Indices of nodes, and numbers of model inputs.
    """
    needed = tape.output_nodes | tape.kept_nodes
    for node in reversed(tape.nodes):
        if node.operation.endswith("_"):
            needed.add(node.index)
        if node.index in needed:
            needed.update(node.inputs)
    return needed
