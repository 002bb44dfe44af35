"""The proof check: a smaller model must join exactly the units that the traced model joined.

Right shapes are no proof: an uncoarsened channel shuffle runs, with the wrong channels. So the
smaller model is traced again with its positions labelled by their original ids. Every edge of the
new trace must join ids of one original unit, nothing that was free may have become fixed, and every
number that changes values must have been there before.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from secateur.errors import MiswiredError, SecateurError
from secateur.structure._evidence import Evidence, scalars_of
from secateur.structure._inventory import Inventory, smaller_twins, take_inventory
from secateur.structure._label import Ids
from secateur.structure._structure import Live, Reason, Structure
from secateur.structure._tape import CONSTANT_ID, Node, Tape
from secateur.structure._tracer import Stage, is_own_code


@dataclass(frozen=True, slots=True)
class Violation:
    """Where a smaller model departs from the traced one.

    Attributes:
        message: What is wrong.
        file: Source file of the model's code.
        line: Line in it.
        module: Path of the module.
        operation: Name of the operation.
    """

    message: str
    file: str
    line: int
    module: str
    operation: str

    def __str__(self) -> str:
        source = f"{self.file}:{self.line}" if self.file else ""
        return str(
            Reason(
                message=self.message, module=self.module, operation=self.operation, source=source
            )
        )


def prove(model: nn.Module, structure: Structure, live: Live) -> None:
    """Check that a smaller model is wired as the traced one.

    Args:
        model: The model after surgery.
        structure: Structure of the model before its first removal.
        live: What is left of it.

    Raises:
        MiswiredError: The model computes something else, or cannot run.
    """
    inventory = take_inventory(model)
    evidence = structure.evidence
    assert evidence is not None, "the structure was made by hand and holds no evidence"
    members = [(i, m) for i, family in enumerate(structure.families) for m in family.members]
    ids = evidence.live_ids(members, live)
    for name, tensor in inventory.tensors.items():
        expected = tuple(len(ids[name, a]) for a in range(tensor.ndim) if (name, a) in ids)
        if (name, 0) in ids and expected != tuple(tensor.shape):
            raise MiswiredError(
                f"Tensor {name} has shape {tuple(tensor.shape)}, but {expected} is what is left "
                "of it. Pass the `live` that belongs to this model."
            )
    violation = find_violation(model, inventory, evidence, ids, live, structure.example)
    if violation is not None:
        raise MiswiredError(
            f"The smaller model is not the model it was cut from: {violation}. "
            "Expected the same wiring with fewer units. Please report the model; until then, "
            "keep the parts that meet this line out of the search."
        )


def find_violation(
    model: nn.Module,
    inventory: Inventory,
    evidence: Evidence,
    ids: Mapping[tuple[str, int], Ids],
    live: Live,
    example: tuple[tuple[Any, ...], dict[str, Any]],
) -> Violation | None:
    """Trace a model whose tensors hold given ids and compare its wiring with the evidence.

    Args:
        model: The model; only its tensors' sizes may differ from ``ids``, which count.
        inventory: Its tensors.
        evidence: Wiring of the original.
        ids: Original ids left on every axis.
        live: Units that are left.
        example: Arguments of the forward.

    Returns:
        The first departure, or None.
    """
    twins = smaller_twins(inventory, ids)
    stage = Stage(model, twins, inventory.names)
    lone = np.array([int(mask.sum()) == 1 for mask in live.units] + [False])
    nodes: list[Node] = []
    for training in evidence.modes:
        tape = Tape(num_ids=len(evidence.component), groupings=dict(evidence.groupings))
        try:
            with stage.open(training=training):
                stage.run(tape, example)
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            return _failure(error, tape)
        nodes += tape.nodes
        found = _wrong_edge(tape, evidence, lone) or _wrong_freeze(tape, evidence, lone)
        if found is not None:
            return found
    return _wrong_number(nodes, evidence)


def _wrong_edge(tape: Tape, evidence: Evidence, lone: NDArray[np.bool_]) -> Violation | None:
    """Edges join ids of one component; an edge to padding fixes, as a freeze does."""
    component = evidence.component
    for a, b, node in tape.edges:
        padded = (a == CONSTANT_ID) | (b == CONSTANT_ID)
        fixes = _is_spare(np.maximum(a, b), evidence, lone)
        if np.where(padded, fixes, component[a] != component[b]).any():
            return _at(node, "joins units that were apart in the larger model")
    return None


def _wrong_freeze(tape: Tape, evidence: Evidence, lone: NDArray[np.bool_]) -> Violation | None:
    for ids, reason in tape.freezes:
        if _is_spare(ids, evidence, lone).any():
            file, _, line = reason.source.rpartition(":")
            message = f"fixes units that were free in the larger model: {reason.message}"
            return Violation(message, file, int(line or 0), reason.module, reason.operation)
    return None


def _is_spare(ids: Ids, evidence: Evidence, lone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Tell which ids may still leave: a family's last unit stays, so it may well look fixed."""
    family = evidence.family[evidence.component[ids]]
    return (family >= 0) & ~lone[family]


def _wrong_number(nodes: list[Node], evidence: Evidence) -> Violation | None:
    """Every number must occur in the original, in the same order, in the same module."""
    positions: dict[str, int] = {}
    for module, entries in scalars_of(nodes).items():
        expected = evidence.scalars.get(module, ())
        for entry in entries:
            place = positions.get(module, 0)
            while place < len(expected) and expected[place] != entry:
                place += 1
            if place == len(expected):
                node = next(
                    n for n in nodes if n.module == module and (n.operation, n.scalars) == entry
                )
                return _at(node, f"computes with other numbers than before, {entry[1]}")
            positions[module] = place + 1
    return None


def _at(node: Node, message: str) -> Violation:
    return Violation(message, node.file, node.line, node.module, node.operation)


def _failure(error: Exception, tape: Tape) -> Violation:
    """Describe a forward that no longer runs, by the innermost line of the model's own code."""
    if isinstance(error, SecateurError):
        message = str(error)
    else:
        message = f"does not run at the smaller size: {str(error).splitlines()[0]}"
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not is_own_code(frame.filename)
    ]
    last = tape.nodes[-1] if tape.nodes else None
    module = last.module if last else ""
    operation = last.operation if last else ""
    if not frames:
        return Violation(message, "", 0, module, operation)
    return Violation(message, frames[-1].filename, frames[-1].lineno or 0, module, operation)
