"""What one traced forward pass leaves behind: ids, edges between them, and a graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from secateur.structure._allowance import Allowance
from secateur.structure._choice import Choice, Pick
from secateur.structure._label import Ids, Label, axis_label
from secateur.structure._module_call import ModuleCall
from secateur.structure._silence import VIEWS
from secateur.structure._split import Place, Split
from secateur.structure._structure import Reason
from secateur.structure._use import Use

CONSTANT_ID = 0
"""Id of positions that belong to nothing: padding, unlabelled parts of a concatenation."""
Made = tuple[tuple[str, str], int]


class Grouping(Enum):
    """How the groups of a convolution relate to units."""

    PLAIN = "one group"
    DEPTHWISE = "a group is a channel, and leaves with it"
    GROUPED = "a unit is the same position in every group"


@dataclass(slots=True)
class Node:
    """One executed operation.

    Attributes:
        index: Position in execution order.
        operation: Name of the ATen operation, such as ``aten.convolution``.
        module: Path of the innermost module whose forward was running.
        call: Index of that module's call, -1 outside of any.
        file: Source file of the model's code that led here.
        line: Line in that file.
        inputs: Indices of the nodes (or negative numbers of model inputs) it reads.
        tensors: Canonical names of the parameters and buffers it reads directly.
        labels: Labels of its inputs.
        scalars: Non-tensor arguments that change values rather than shapes.
        shape: Shape of its first output.
        num_operands: Number of tensors it was given, those included that the model holds elsewhere.
        affine: For a norm with a weight: what is known of its weight and, if it has one, its bias.
    """

    index: int
    operation: str
    module: str
    call: int
    file: str
    line: int
    inputs: tuple[int, ...] = ()
    tensors: tuple[str, ...] = ()
    labels: tuple[Label, ...] = ()
    scalars: tuple[object, ...] = ()
    shape: tuple[int, ...] = ()
    num_operands: int = 0
    affine: tuple[Info, ...] = ()

    @property
    def place(self) -> Place:
        """Where the operation is called."""
        return self.module, self.file, self.line

    def reason(self, message: str) -> Reason:
        """Say that something is so because of this operation."""
        source = f"{self.file}:{self.line}" if self.file else ""
        return Reason(message=message, module=self.module, operation=self.operation, source=source)


@dataclass(slots=True)
class Info:
    """What the tracer knows of one tensor.

    Attributes:
        labels: Labels, each on its own set of axes.
        node: Index of the node that made it, a negative number for a model input, else None.
        tensor: Name of the parameter or buffer it is, through layout operations only, else None.
        value: Its real content where that is known.
        refers: Where its numbers say which unit is meant: the id that each number refers to.
    """

    labels: tuple[Label, ...] = ()
    node: int | None = None
    tensor: str | None = None
    value: Tensor | None = None
    refers: Ids | None = None


@dataclass(slots=True)
class Charge:
    """MACs of one node: ``coefficient * prod(live share of each factor's ids * its size)``.

    Attributes:
        node: Index of the node.
        coefficient: Product of the sizes of all unlabelled axes.
        factors: Ids along each group of labelled axes.
    """

    node: int
    coefficient: float
    factors: tuple[Ids, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Statistic:
    """A mean or variance over units that the model's own code works out.

    Attributes:
        module: Path of the module that asks for it.
        function: Name of the PyTorch function.
        ordinal: How often the module called that function before.
        axis: Axis the units are on.
        ids: Ids along the axis.
    """

    module: str
    function: str
    ordinal: int
    axis: int
    ids: Ids


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A product of two computed tensors that sums over units.

    Attributes:
        tape: The run it was met in.
        node: Its index.
        factors: Nodes that made both tensors.
        ids: Ids of the units.
    """

    tape: Tape
    node: int
    factors: tuple[int | None, ...]
    ids: Ids


@dataclass(slots=True)
class Tape:
    """Everything recorded while the model ran once (or twice, in both modes).

    Attributes:
        num_ids: Number of ids handed out, the constant one included.
        ranges: (canonical tensor name, axis) to the ids along that axis.
        nodes: Operations in execution order.
        calls: Module calls in order of entry.
        consulted: Paths of modules from which code outside of them reads tensors or modules.
        charges: Where the MACs are.
        output_nodes: Nodes whose result leaves the model.
        kept_nodes: Nodes whose result the model keeps for its next call.
        doubts: Nodes that were given the size of a labelled axis as a number.
        uses: Numbers kept by modules that were used as sizes.
        made: Ids of axes sized by a number of a module, by its place and how often it was used.
        num_made: How often each of these numbers was used in this run so far.
        is_retrace: Whether the ids are those of an earlier trace, so that no new ones are made.
        function: Name and arguments of the PyTorch function the model is calling.
        ordinal: How often the running module called that function before.
        statistics: Means and variances over units.
        cuts: Ids on an axis up to where a slice began or ended.
        groupings: How the groups of each convolution were read, by the name of its weight.
        equal_parts: Whether a split at a module, file and line, or a slice, took equal parts.
        ties: Ids on axes that the model's code takes to be equally long, and the node that does.
        edges: Ids that can only leave together, and the node that says so.
        freezes: Ids that cannot leave, and why.
        inexact: Ids that share a statistic, and where.
        shared: Ids that are weighed against each other, and why they stay unless some are chosen.
        choices: Choices among units.
        picks: Where choices pick slices of stored tensors.
        blocks: Ids of widths whose positions leave several at a time.
        shares: Nodes that read the positions one unit was chosen for, and the number of units.
        consumed: Ids of weight slices that multiply the units they belong to.
        joints: Labels that came to vary on several axes.
        splits: Axes that a reshape split.
        multiplied: Ids of units that a product of two computed tensors does not sum over.
        products: Products of two computed tensors that sum over units inside heads.
        inside: Places of reshapes that make heads, if units lie inside; None if heads are units.
        allowance: What the trace may take, or None.
        last: In a smaller model: the unit of each id that is the last of several, else -1; or None.
    """

    num_ids: int = 1
    ranges: dict[tuple[str, int], Ids] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    calls: list[ModuleCall] = field(default_factory=list)
    consulted: set[str] = field(default_factory=set)
    charges: list[Charge] = field(default_factory=list)
    output_nodes: set[int] = field(default_factory=set)
    kept_nodes: set[int] = field(default_factory=set)
    doubts: list[Node] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    made: dict[Made, Ids] = field(default_factory=dict)
    num_made: Counter[tuple[str, str]] = field(default_factory=Counter)
    is_retrace: bool = False
    function: tuple[str, tuple[object, ...]] = ("", ())
    ordinal: int = 0
    statistics: list[Statistic] = field(default_factory=list)
    groupings: dict[str, Grouping] = field(default_factory=dict)
    equal_parts: dict[Place, bool] = field(default_factory=dict)
    ties: list[tuple[Ids, Ids, Node]] = field(default_factory=list)
    edges: list[tuple[Ids, Ids, Node]] = field(default_factory=list)
    freezes: list[tuple[Ids, Reason]] = field(default_factory=list)
    inexact: list[tuple[Ids, Reason]] = field(default_factory=list)
    shared: list[tuple[Ids, Reason]] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    picks: list[Pick] = field(default_factory=list)
    blocks: list[Ids] = field(default_factory=list)
    shares: dict[int, int] = field(default_factory=dict)
    consumed: list[Ids] = field(default_factory=list)
    joints: list[Label] = field(default_factory=list)
    cuts: list[Ids] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    multiplied: list[Ids] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    inside: frozenset[Place] | None = None
    last: NDArray[np.int64] | None = None
    allowance: Allowance | None = None

    def second_pass(self) -> Tape:
        """Return a tape for another run of the same tensors; units are shared, the graph is not."""
        return replace(
            self,
            nodes=[],
            calls=[],
            charges=[],
            output_nodes=set(),
            kept_nodes=set(),
            num_made=Counter(),
            statistics=[],
            shares={},
        )

    def reads_as_equal(self, are_equal: bool) -> bool:
        """Say whether the running split is into equal parts by intent, or because of what is left.

        A smaller model is read as the one it was cut from: parts of different lengths stay apart
        where they come to be as long as each other.

        Args:
            are_equal: Whether the parts are equally long.

        Returns:
            True for equal by intent: the same position of every part is one unit.
        """
        place = self.nodes[-1].place
        if self.is_retrace:
            return are_equal and self.equal_parts.get(place, True)
        self.equal_parts[place] = are_equal or self.equal_parts.get(place, False)
        return are_equal

    def allot(self, name: str, shape: Sequence[int]) -> tuple[Label, ...]:
        """Hand out a fresh range of ids to every axis of a parameter or buffer."""
        labels = []
        for axis, size in enumerate(shape):
            ids = np.arange(self.num_ids, self.num_ids + size, dtype=np.int64)
            self.num_ids += size
            self.ranges[name, axis] = ids
            labels.append(axis_label(ids, axis, len(shape)))
        return tuple(labels)

    def ids_of_made(self, source: tuple[str, str], size: int) -> Ids:
        """Return the ids of an axis that got its size from a number kept by a module.

        Args:
            source: Module path and slot of the number.
            size: The number.

        Returns:
            Fresh ids, or those of the same use in the trace that is being followed, if it had one.
        """
        key = source, self.num_made[source]
        self.num_made[source] += 1
        if key not in self.made and self.is_retrace:
            return np.zeros(0, dtype=np.int64)
        if key not in self.made:
            self.made[key] = np.arange(self.num_ids, self.num_ids + size, dtype=np.int64)
            self.num_ids += size
        return self.made[key]

    def reason(self, message: str) -> Reason:
        """Describe the operation that is running."""
        return self.nodes[-1].reason(message) if self.nodes else Reason(message=message)

    def doubt_number(self, *, kept_up: bool = True) -> None:
        """Note that the running operation was given a size, unless a standard layer keeps it.

        Args:
            kept_up: False where the layer owns no tensor from which surgery could correct the size.
        """
        node = self.nodes[-1]
        call = self.calls[node.call] if node.call >= 0 else None
        if call is None or not (kept_up and (call.standard or call.proven)):
            self.doubts.append(node)

    def join(self, a: Ids, b: Ids) -> None:
        """Unite ids pairwise; the arrays broadcast against each other."""
        if a.shape != b.shape:
            a, b = np.broadcast_arrays(a, b)
        self.edges.append((a.ravel(), b.ravel(), self.nodes[-1]))

    def join_along(self, label: Label, axes: Iterable[int]) -> Label:
        """Unite a label's ids along some of its axes and return what is left of it."""
        gone = label.axes & frozenset(axes)
        if not gone:
            return label
        left = label.without(gone)
        self.join(label.ids, left.ids)
        return left

    def freeze(self, labels: Iterable[Label], message: str) -> None:
        """Fix every position of some labels."""
        reason = None
        for label in labels:
            reason = reason or self.reason(message)
            self.freezes.append((label.ids.ravel(), reason))

    def mark_inexact(self, label: Label, message: str) -> None:
        """Note that an operation computes a statistic over a label's positions."""
        self.inexact.append((label.ids.ravel(), self.reason(message)))

    def pass_share_on(self) -> None:
        """Note that the running operation reads positions that one of several units was chosen for.

        It does where it reads a mask of one unit, or a view of such a mask.
        """
        node = source = self.nodes[-1]
        while source.inputs and source.inputs[0] >= 0:
            source = self.nodes[source.inputs[0]]
            if source.index in self.shares:
                self.shares[node.index] = self.shares[source.index]
            if source.operation not in VIEWS:
                return

    def mark_shared(self, label: Label, message: str) -> None:
        """Note that a label's positions stay for a reason, unless some of them are chosen."""
        self.shared.append((label.ids.ravel(), self.reason(message)))

    def note_statistic(self, label: Label) -> None:
        """Remember where the model's own code takes a statistic over units."""
        node = self.nodes[-1]
        (axis,) = label.axes
        found = Statistic(node.module, self.function[0], self.ordinal, axis, label.ids.ravel())
        self.statistics.append(found)

    def charge(self, coefficient: float, factors: Iterable[Ids]) -> None:
        """Book MACs on the running node."""
        own = tuple(ids.ravel() for ids in factors)
        self.charges.append(Charge(self.nodes[-1].index, coefficient, own))

    def charge_along(self, ids: Ids) -> None:
        """Multiply what was booked last by one more axis of units."""
        last = self.charges[-1]
        self.charges[-1] = Charge(last.node, last.coefficient, (*last.factors, ids.ravel()))
