"""Finds what silences a branch: stored parameters whose zeros make its end zero, come what may.

The walk goes back from the end through operations that turn zeros into zeros until it meets one
that multiplies by stored parameters. A sum is silent once each of its parts is. A weight may be
computed from stored parameters itself: by weight normalisation or standardisation it is as long as
a parameter says.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import cached_property

from secateur.structure._silence import ADDITIONS, KEEPS_ZERO, PRODUCTS, VIEWS
from secateur.structure._structure import TensorInfo
from secateur.structure._tape import Info, Node, Tape

_COPIES = {"aten._to_copy", "aten.clone"}
_NORMS = {
    "aten.native_batch_norm", "aten._native_batch_norm_legit",
    "aten._native_batch_norm_legit_no_training", "aten.native_layer_norm",
    "aten.native_group_norm", "aten._fused_rms_norm",
}  # fmt: skip
_WEIGHT_NORMS = {"aten._weight_norm", "aten._weight_norm_interface"}
_PARTS = {"aten.split", "aten.split_with_sizes", "aten.unbind"}
_SUMS = ADDITIONS | {"aten.sub", "aten.sub_"}
_ZEROS = {"aten.new_zeros", "aten.zeros", "aten.zeros_like"}
_JOINS = {"aten.cat", "aten.concat", "aten.stack"}

Names = frozenset[str]
_NOTHING: Names = frozenset()


class Ends:
    """Names what silences the ends of branches.

    Args:
        tape: The trace.
        tensors: Parameters and buffers by canonical name.
    """

    def __init__(self, tape: Tape, tensors: Mapping[str, TensorInfo]) -> None:
        self._tape = tape
        self._tensors = tensors
        self._picked = {
            pick.node: pick.tensor
            for pick in tape.picks
            if pick.nodes is tape.nodes and tape.nodes[pick.node].operation not in PRODUCTS
        }

    @cached_property
    def _from_data(self) -> list[bool]:
        """Whether each node depends on an input of the model."""
        found: list[bool] = []
        for node in self._tape.nodes:
            found.append(any(i < 0 or found[i] for i in node.inputs))
        return found

    def closing(self, end: int, nodes: Container[int]) -> Names:
        """Name the parameters of the last affine operations before a node.

        Args:
            end: Index of the node.
            nodes: Nodes of the branch, beyond which the walk does not go.

        Returns:
            Canonical names; zeroing all of them silences the node. Nothing where it cannot be
            silenced.
        """
        found: Names = _NOTHING
        while end in nodes:
            node = self._tape.nodes[end]
            own = self._parameters_of(node)
            closed, is_end = self._closed_here(node, own, nodes)
            if is_end:
                return found | closed if closed else _NOTHING
            is_product = node.operation.rstrip("_") == "aten.mul"
            inside = self._carriers(node, nodes)
            if node.operation in _SUMS:
                if not own:
                    # What is added to one tensor alone is a number.
                    parts = self._closing_of_all(node, nodes) if len(node.inputs) > 1 else _NOTHING
                    return found | parts if parts else _NOTHING
                found |= own
            elif node.operation not in KEEPS_ZERO | _PARTS and not is_product:
                return _NOTHING
            if not inside:
                return _NOTHING
            for factor in inside[1:] if is_product else ():
                rest = self.closing(factor, nodes)
                if rest:
                    return found | rest
            end = inside[0]
        return _NOTHING

    def _closed_here(self, node: Node, own: Names, nodes: Container[int]) -> tuple[Names, bool]:
        """Say what closes an operation by itself, and whether the walk ends here either way."""
        if node.operation in PRODUCTS:
            return self._of_product(node, own, nodes), True
        if node.operation in _NORMS:
            return self._of_all(node.affine, nodes), True
        if node.operation in _WEIGHT_NORMS:
            length = node.tensors[1:] if len(node.tensors) == 2 else ()
            return frozenset(n for n in length if self._tensors[n].is_parameter), True
        if node.operation.rstrip("_") == "aten.mul" and own:
            return own, True
        if node.operation.rstrip("_") == "aten.index_add":
            return self._of_rows(node, nodes), True
        if node.operation in _JOINS:
            return (_NOTHING if node.tensors else self._closing_of_all(node, nodes)), True
        return _NOTHING, False

    def _of_product(self, node: Node, own: Names, nodes: Container[int]) -> Names:
        """Close a product by its weight and its bias, stored or computed from what is stored."""
        computed = [i for i in node.inputs if i < 0 or not self._stored_names(self._tape.nodes[i])]
        weights = [i for i in computed if i >= 0 and not self._from_data[i]]
        # A grouped product is also told where its groups end.
        allowed = 2 if node.operation == "aten._grouped_mm" else 1
        if len(computed) <= allowed:
            return own
        parts = [self.closing(i, nodes) for i in weights]
        is_complete = len(computed) - len(weights) == 1 and all(parts)
        return own.union(*parts) if is_complete else _NOTHING

    def _of_rows(self, node: Node, nodes: Container[int]) -> Names:
        """Close rows that are added to zeros one after another, as those of experts in a loop."""
        found: Names = _NOTHING
        while node.operation not in _ZEROS:
            is_added = node.operation.rstrip("_") == "aten.index_add" and len(node.inputs) == 3
            own = self.closing(node.inputs[2], nodes) if is_added else _NOTHING
            if not own or node.inputs[0] < 0:
                return _NOTHING
            found |= own
            node = self._tape.nodes[node.inputs[0]]
        return found

    def _closing_of_all(self, node: Node, nodes: Container[int]) -> Names:
        """Name what silences every operand; nothing where one of them cannot be silenced."""
        parts = [self.closing(i, nodes) for i in node.inputs if i >= 0]
        is_complete = len(parts) == node.num_operands and all(parts)
        return _NOTHING.union(*parts) if is_complete else _NOTHING

    def _of_all(self, infos: tuple[Info, ...], nodes: Container[int]) -> Names:
        """Name what silences given tensors, each of which may be stored itself."""
        parts = []
        for info in infos:
            names: tuple[str, ...] = () if info.tensor is None else (info.tensor,)
            if info.node is not None:
                names = self._stored_names(self._tape.nodes[info.node])
            stored = frozenset(n for n in names if self._tensors[n].is_parameter)
            computed = _NOTHING if info.node is None else self.closing(info.node, nodes)
            parts.append(stored or computed)
        return _NOTHING.union(*parts) if all(parts) else _NOTHING

    def _carriers(self, node: Node, nodes: Container[int]) -> list[int]:
        """List the operands that belong to a branch; first what was computed from data, and late.

        An operation that is no product or sum works on its first operand; others say where, or how
        far.

        Args:
            node: A node of the branch.
            nodes: All of its nodes.

        Returns:
            Indices of nodes.
        """
        computed = [i for i in node.inputs if i >= 0 and not self._stored_names(self._node(i))]
        inside = [i for i in computed if i in nodes]
        if node.operation in KEEPS_ZERO and node.inputs and node.inputs[0] in inside:
            return [node.inputs[0]]
        return sorted(inside, key=lambda i: (bool(self._node(i).inputs), i), reverse=True)

    def _parameters_of(self, node: Node) -> Names:
        """Name the parameters a node reads, directly or through layout operations."""
        names = [*node.tensors]
        for i in node.inputs:
            if i >= 0:
                names += self._stored_names(self._node(i))
        return frozenset(name for name in names if self._tensors[name].is_parameter)

    def _stored_names(self, node: Node) -> tuple[str, ...]:
        """Name the tensor that a node is a view or a choice of; its zeros are zeros here."""
        if node.index in self._picked:
            return (self._picked[node.index],)
        if node.operation not in VIEWS | _COPIES or len(node.inputs) + len(node.tensors) != 1:
            return ()
        if node.tensors:
            return node.tensors
        return () if node.inputs[0] < 0 else self._stored_names(self._node(node.inputs[0]))

    def _node(self, index: int) -> Node:
        return self._tape.nodes[index]
