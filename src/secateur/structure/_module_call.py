"""What is recorded of one call of a module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from secateur.structure._label import Label


class Given(NamedTuple):
    """A tensor that a module was given.

    Attributes:
        node: Node that made it, if any did.
        shape: Its shape.
        labels: Its labels.
    """

    node: int | None
    shape: tuple[int, ...]
    labels: tuple[Label, ...]


@dataclass(slots=True)
class ModuleCall:
    """One call of a module during the trace.

    Attributes:
        path: The module's path.
        parent: Index of the enclosing call, -1 for the model itself.
        standard: Whether the module is one of PyTorch's own layers, whose size attributes surgery
            keeps up to date.
        proven: Whether the module is one of `secateur.nn`, whose sizes all follow from its weights.
        start: First node of the call.
        stop: One past its last node.
        inputs: Nodes that made its tensor arguments, in order.
        num_arguments: Number of its arguments that are not None.
        first: Its first argument where that is a tensor.
        outputs: Node of each entry of its output; None where an entry is not a tensor.
        output_labels: Labels of each entry of its output.
        returns_tuple: Whether it returned a tuple (or list) rather than a tensor.
        returns_values: Whether something else than tensors and None was in that tuple.
    """

    path: str
    parent: int
    standard: bool
    proven: bool
    start: int
    stop: int = -1
    inputs: tuple[int | None, ...] = ()
    num_arguments: int = 0
    first: Given | None = None
    outputs: tuple[int | None, ...] = ()
    output_labels: tuple[tuple[Label, ...], ...] = ()
    returns_tuple: bool = False
    returns_values: bool = False
