"""What a model is made of: families of units, removable layers, and everything that is fixed.

Positions are those of the model as it was traced; a `Live` says which structures are left.

Letters: U units of one family, K positions a unit holds on one axis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from secateur.structure._cost import Cost, Factor
    from secateur.structure._evidence import Evidence
    from secateur.structure._explain import Explanation, Grounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why something cannot be removed, and where the model says so.

    Attributes:
        message: One sentence.
        module: Path of the module whose forward ran the operation; ``""`` is the model itself.
        operation: The operation's name, such as ``aten.view``.
        source: ``file:line`` of the model's own code, or ``""`` where it is unknown.
    """

    message: str
    module: str = ""
    operation: str = ""
    source: str = ""

    def __str__(self) -> str:
        where = [part for part in (self.module, self.operation, self.source) if part]
        return f"{self.message} ({', '.join(where)})" if where else self.message


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One parameter or buffer of the traced model.

    Attributes:
        name: Canonical qualified name, the first under which the model lists the tensor.
        aliases: Every qualified name of the tensor, the canonical one first (ties have several).
        shape: Shape at the time of the trace.
        is_parameter: False for buffers.
    """

    name: str
    aliases: tuple[str, ...]
    shape: tuple[int, ...]
    is_parameter: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """The slices that the units of a family hold on one axis of one tensor.

    Attributes:
        tensor: Canonical name of the parameter or buffer.
        axis: Axis of the tensor.
        index: Positions along the axis that belong to each unit, int64 ``[U, K]``.
        consumes: True where the tensor multiplies the units' activations in a contraction:
            zeroing these slices silences a unit, exactly and whatever its activation is.
    """

    tensor: str
    axis: int
    index: Tensor
    consumes: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Family:
    """Units that live in the same places and can be removed one by one.

    Attributes:
        name: Path of the module in which the units are made, such as ``layer1.0.conv1``.
        kind: ``filter``, ``neuron``, ``head``, ``dimension`` (inside heads), ``expert`` or
            ``channel``.
        num_units: U, the number of units at the time of the trace.
        members: Every slice that leaves with a unit.
        inexact: Why removing a unit changes more than masking it would, or None where both agree.
        fewest: Number of units that have to stay: one, or as many experts as a router chooses.
    """

    name: str
    kind: str
    num_units: int
    members: tuple[Member, ...]
    inexact: Reason | None = None
    fewest: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stub:
    """What stands in for a module once the layer it served is gone.

    Attributes:
        module: Path of the module that is replaced.
        kind: ``identity`` (returns its first argument), ``zero`` (returns zeros shaped like its
            first argument) or ``shortcut`` (calls the children named in ``children`` in order).
        children: For ``shortcut``: names of the module's own children that remain.
        output: For ``zero``: None for a plain tensor, or (position, length) where the module
            returned a tuple whose other entries were not tensors.
    """

    module: str
    kind: str
    children: tuple[str, ...] = ()
    output: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A residual branch that can go as a whole.

    Attributes:
        name: Path of the block, with the branch's last module where a block has several branches,
            and with a number where that is still the name of another layer.
        closing: Parameters of the branch's last affine operation; zeroing them all makes the
            branch contribute nothing.
        tensors: Parameters and buffers that only this branch uses; they go with it.
        stubs: What replaces the branch's modules.
    """

    name: str
    closing: tuple[str, ...]
    tensors: frozenset[str]
    stubs: tuple[Stub, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSize:
    """A number that a module keeps and that counts units, such as its number of heads.

    Attributes:
        module: Path of the module.
        slot: Where the module keeps it: ``num_heads``, ``splits.1`` or ``config.hidden_size``.
        size: The number, as a function of live units.
    """

    module: str
    slot: str
    size: Factor

    def at(self, counts: Sequence[int]) -> int:
        """Return the number at given counts of live units, one a family."""
        return round(self.size.fixed + sum(m * counts[f] for f, m in self.size.multiplicity))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fixed:
    """Something that cannot be removed, and why.

    Attributes:
        what: ``tensor[axis]`` or the name of a residual branch.
        size: Number of positions (or 1 for a branch).
        reason: Why.
    """

    what: str
    size: int
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Live:
    """Which units and layers are left.

    Attributes:
        units: One bool tensor ``[U]`` a family.
        layers: Bool tensor with one entry a layer.
    """

    units: tuple[Tensor, ...]
    layers: Tensor

    def without(self, decision: Decision) -> Live:
        """Return what is left once a decision is carried out.

        Args:
            decision: Structures to take away; those already gone stay gone.

        Returns:
            A new object; this one is unchanged.
        """
        units = [mask.clone() for mask in self.units]
        for family, gone in decision.units.items():
            units[family][gone] = False
        layers = self.layers.clone()
        layers[list(decision.layers)] = False
        return Live(units=tuple(units), layers=layers)

    @property
    def counts(self) -> Tensor:
        """Number of live units a family, int64."""
        return torch.tensor([int(mask.sum()) for mask in self.units], dtype=torch.int64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decision:
    """Structures that should go, in positions of the traced model.

    Attributes:
        units: Family index to an int64 tensor of unit numbers.
        layers: Layer indices.
    """

    units: Mapping[int, Tensor] = field(default_factory=dict)
    layers: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.layers) or any(len(gone) > 0 for gone in self.units.values())


@dataclass(frozen=True, kw_only=True, eq=False)
class Structure:
    """Everything `trace` found out about a model.

    Attributes:
        families: Families of removable units.
        layers: Removable residual branches.
        fixed: What cannot be removed, with reasons.
        tensors: Every parameter and buffer by canonical name.
        cost: MACs and parameters as functions of what is live.
        example: Positional and keyword arguments of the forward that was traced.
        stored: Numbers in modules that follow the units they count.
        evidence: What the proof check holds a smaller model against.
        grounds: What `explain` looks reasons up in.
    """

    families: tuple[Family, ...]
    layers: tuple[Layer, ...]
    fixed: tuple[Fixed, ...]
    tensors: Mapping[str, TensorInfo]
    cost: Cost
    example: tuple[tuple[Any, ...], dict[str, Any]]
    stored: tuple[StoredSize, ...] = ()
    evidence: Evidence | None = None
    grounds: Grounds | None = None

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Where each family starts when all units are counted through, plus the total."""
        starts = [0]
        for family in self.families:
            starts.append(starts[-1] + family.num_units)
        return tuple(starts)

    @property
    def num_units(self) -> int:
        """Number of removable units over all families."""
        return self.offsets[-1]

    @property
    def num_layers(self) -> int:
        """Number of removable layers."""
        return len(self.layers)

    def everything(self) -> Live:
        """Return the `Live` in which nothing is gone."""
        return Live(
            units=tuple(torch.ones(family.num_units, dtype=torch.bool) for family in self.families),
            layers=torch.ones(len(self.layers), dtype=torch.bool),
        )

    def explain(self, name: str) -> Explanation:
        """Say of one tensor which units its axes belong to, or why they are fixed.

        Args:
            name: Name of a parameter or buffer; any of its names if it is tied.

        Returns:
            What may leave it, and every reason why the rest stays; ``print`` it.

        Raises:
            UsageError: The model has no such tensor, or this structure was not traced.

        Example:
            >>> import torch, secateur
            >>> net = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 2))
            >>> print(secateur.trace(net, torch.zeros(1, 8)).explain("0.bias"))
            0.bias: parameter of shape [4]
            axis 0 (4 positions): belongs to the 4 units (neuron) of 0, 1 position each
        """
        from secateur.structure._explain import explain

        return explain(self, name)

    def __str__(self) -> str:
        from secateur.structure._table import render

        return render(self)
