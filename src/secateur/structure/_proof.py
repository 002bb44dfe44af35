"""The proof check: a smaller model must join exactly the units that the traced model joined.

Right shapes are no proof: an uncoarsened channel shuffle runs, with the wrong channels. So the
smaller model is traced again with its positions labelled by their original ids. Every edge of the
new trace must join ids of one original unit, every operation must meet the ids it met before, in
order and without those that are gone, nothing that was free may have become fixed, and every number
that changes values must have been there before.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from secateur.errors import MiswiredError, SecateurError
from secateur.structure._evidence import Evidence, Places, Positions, scalars_of
from secateur.structure._inventory import Inventory, smaller_twins, take_inventory
from secateur.structure._label import Ids, Label
from secateur.structure._own_code import is_own_code
from secateur.structure._solve import connected
from secateur.structure._stage import Stage
from secateur.structure._structure import Live, Reason, Structure
from secateur.structure._tape import CONSTANT_ID, Node, Tape
from secateur.structure._variant import Variant, smaller

_LABELS = str(Path(np.__file__).parent)
_JOINED = "joins units that were apart in the larger model"


@dataclass(frozen=True, slots=True)
class Violation:
    """Where a smaller model departs from the traced one.

    Attributes:
        message: What is wrong.
        file: Source file of the model's code.
        line: Line in it.
        module: Path of the module.
        operation: Name of the operation.
        ids: The ids that are wrong, where that is known.
        of_labels: Whether it is labels that do not fit, which says nothing of other modules' calls.
    """

    message: str
    file: str
    line: int
    module: str
    operation: str
    ids: Ids | None = None
    of_labels: bool = False

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
    variant = smaller(evidence, structure.families, live)
    ids = variant.ids
    for name, tensor in inventory.tensors.items():
        expected = tuple(len(ids[name, a]) for a in range(tensor.ndim) if (name, a) in ids)
        if (name, 0) in ids and expected != tuple(tensor.shape):
            raise MiswiredError(
                f"Tensor {name} has shape {tuple(tensor.shape)}, but {expected} is what is left "
                "of it. Pass the `live` that belongs to this model."
            )
    violation = find_violation(model, inventory, variant, structure.example)
    if violation is not None:
        raise MiswiredError(
            f"The smaller model is not the model it was cut from: {violation}. "
            "Expected the same wiring with fewer units. Please report the model; until then, "
            "keep the parts that meet this line out of the search."
        )


def find_violation(
    model: nn.Module,
    inventory: Inventory,
    variant: Variant,
    example: tuple[tuple[Any, ...], dict[str, Any]],
) -> Violation | None:
    """Trace a model at another size and compare its wiring with that of the original.

    Args:
        model: The model; the sizes of its tensors follow the variant.
        inventory: Its tensors.
        variant: What its axes hold, and what it is held against.
        example: Arguments of the forward.

    Returns:
        The first departure, or None.
    """
    evidence = variant.evidence
    twins = smaller_twins(inventory, variant.ids)
    stage = Stage(model, twins, inventory.names, variant.stored)
    nodes: list[Node] = []
    nothing: tuple[Positions, ...] = ({},) * len(evidence.modes)
    modes = zip(evidence.modes, evidence.places, variant.vanished or nothing, strict=True)
    for training, places, vanished in modes:
        tape = Tape(
            num_ids=len(evidence.component),
            groupings=dict(evidence.groupings),
            equal_parts=dict(evidence.equal_parts),
            inside=evidence.inside,
            made=dict(variant.made),
            is_retrace=True,
            last=variant.last,
        )
        try:
            with stage.open(training=training):
                stage.run(tape, example)
        except (
            RuntimeError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            AssertionError,
        ) as error:
            return _failure(error, tape)
        nodes += tape.nodes
        found = (
            _wrong_edge(tape, variant)
            or _wrong_freeze(tape, variant)
            or _wrong_place(tape, places, vanished, variant)
        )
        if found is not None:
            return found
    return _wrong_number(nodes, evidence)


def _wrong_edge(tape: Tape, variant: Variant) -> Violation | None:
    """Edges join ids of one component; an edge to padding fixes, as a freeze does."""
    component = variant.evidence.component
    apart: list[tuple[NDArray[np.int64], NDArray[np.int64], Node]] = []
    for a, b, node in tape.edges:
        padded = (a == CONSTANT_ID) | (b == CONSTANT_ID)
        wrong = ~padded & (component[a] != component[b])
        if _is_spare(np.maximum(a, b)[padded], variant).any():
            return _at(node, _JOINED)
        if wrong.any():
            apart.append((component[a[wrong]], component[b[wrong]], node))
    return _wrong_meeting(apart, variant) if apart else None


def _wrong_meeting(
    apart: list[tuple[NDArray[np.int64], NDArray[np.int64], Node]], variant: Variant
) -> Violation | None:
    """Judge components that met though they were apart.

    Where one head is left, its axis loses its label, and the head meets whatever is fixed along
    its depth. Where einsum sums over one unit, it multiplies element by element, and fixed
    positions meet beside that unit. Where a layer is gone, fixed positions may meet that its end
    kept apart. That is no mistake as long as nothing that may still leave is among them.

    Args:
        apart: Components on both sides of edges, and the operation that joined them.
        variant: What the model is held against.

    Returns:
        The first operation that joined what should be apart.
    """
    family = variant.evidence.family
    count = len(family)
    a, b = (np.concatenate([edge[side] for edge in apart]) for side in (0, 1))
    group = connected(count, a, b)
    is_lone = (family >= 0) & variant.lone[family]
    is_spare = (family >= 0) & ~variant.lone[family]
    with_lone = np.full(count, not variant.whole)
    with_lone[group[is_lone]] = True
    with_spare = np.zeros(count, dtype=bool)
    with_spare[group[is_spare]] = True
    beside = {node.index for a, b, node in apart if (is_lone[a] | is_lone[b]).any()}
    for side, _, node in apart:
        may_meet = with_lone[group[side]] | (node.index in beside)
        if (with_spare[group[side]] | ~may_meet).any():
            return _at(node, _JOINED)
    return None


def _wrong_freeze(tape: Tape, variant: Variant) -> Violation | None:
    wrong = [(ids[_is_spare(ids, variant)], reason) for ids, reason in tape.freezes]
    found = [(ids, reason) for ids, reason in wrong if len(ids)]
    if not found:
        return None
    reason = found[0][1]
    file, _, line = reason.source.rpartition(":")
    message = f"fixes units that were free in the larger model: {reason.message}"
    ids = np.concatenate([own for own, _ in found])
    return Violation(message, file, int(line or 0), reason.module, reason.operation, ids)


def _wrong_place(
    tape: Tape, places: Places, vanished: Positions, variant: Variant
) -> Violation | None:
    """Compare what operations meet, in every module that still runs the same operations.

    Where a layer is gone, its operations may still run, on the input of the layer or on zeros.

    Args:
        tape: Trace of the smaller model.
        places: What the operations of each module met before.
        vanished: Operations that are not compared.
        variant: What the model is held against.

    Returns:
        The first departure, or None.
    """
    by_module: dict[str, list[Node]] = {}
    for node in tape.nodes:
        by_module.setdefault(node.module, []).append(node)
    for module, nodes in by_module.items():
        before = places.get(module, ())
        if [operation for operation, _ in before] != [node.operation for node in nodes]:
            continue
        pairs_of_nodes = enumerate(zip(nodes, before, strict=True))
        gone = vanished.get(module, frozenset())
        for node, (_, labels) in (pair for number, pair in pairs_of_nodes if number not in gone):
            pairs = _counterparts(labels, node.labels, variant)
            if any(_differs(a, b, variant) for a, b in pairs):
                return _at(node, "meets units in another order than in the larger model")
    return None


def _counterparts(
    before: Sequence[Label], after: Sequence[Label], variant: Variant
) -> list[tuple[Label, Label]]:
    """Pair the labels that an operation met with those it meets now.

    Where one head is left, the label of its axis is gone, and one of its depth may have come.

    Args:
        before: Labels in the original.
        after: Labels at the new size.
        variant: What the model is held against.

    Returns:
        Labels that stand for the same, as far as that can be told.
    """
    is_same = [a.axes for a in before] == [b.axes for b in after]
    if is_same or not any(_is_lone(label, variant) for label in before):
        return list(zip(before, after, strict=True)) if len(before) == len(after) else []
    old, new = (Counter(label.axes for label in labels) for labels in (before, after))
    found = {label.axes: label for label in after if old[label.axes] == new[label.axes] == 1}
    return [(label, found[label.axes]) for label in before if label.axes in found]


def _is_lone(label: Label, variant: Variant) -> bool:
    evidence = variant.evidence
    return bool(variant.lone[evidence.family[evidence.component[label.ids]]].any())


def _differs(before: Label, after: Label, variant: Variant) -> bool:
    """Tell whether a label is not what should have become of it, last units by unit only.

    With one unit left an axis may have lost its label, and another id may stand for the unit. Its
    axis of one may also have been flattened into another, where nothing was that may leave.

    Args:
        before: Label of the original.
        after: Label at the new size.
        variant: What should have become of it.

    Returns:
        True where they differ.
    """
    evidence = variant.evidence
    expected, found = variant.expected(before), after.ids
    lone = variant.lone[evidence.family[evidence.component[expected]]]
    if expected.shape == found.shape:
        meets_lone = variant.lone[evidence.family[evidence.component[found]]]
        lone = lone | (meets_lone & ~_is_spare(expected, variant))
    if lone.any():
        by_unit = evidence.component if variant.whole else variant.same
        units, met = by_unit[expected], by_unit[found]
        comparable = units.size == met.size
        return comparable and bool(((units.ravel() != met.ravel()) & ~lone.ravel()).any())
    if expected.shape != found.shape and expected.ndim == found.ndim and not variant.whole:
        return not _spans_units(evidence.component[expected], evidence.component[found])
    return not np.array_equal(variant.same[expected], variant.same[found])


def _spans_units(units: Ids, met: Ids) -> bool:
    """Tell whether a label says the same as one that does not vary along some of its axes.

    What a gone layer added made one unit of positions along these axes; the rest still says so.

    Args:
        units: Component of each id of one label.
        met: Component of each id of the other.

    Returns:
        True where both agree at every position.
    """
    pairs = zip(units.shape, met.shape, strict=True)
    return all(a == b or 1 in (a, b) for a, b in pairs) and bool((units == met).all())


def _is_spare(ids: Ids, variant: Variant) -> NDArray[np.bool_]:
    """Tell which ids may still leave: a family's last unit stays, so it may well look fixed."""
    evidence = variant.evidence
    family = evidence.family[evidence.component[ids]]
    return (family >= 0) & ~variant.lone[family]


def _wrong_number(nodes: list[Node], evidence: Evidence) -> Violation | None:
    """Every number must occur in the original, in the same order, in the same module."""
    for module, entries in scalars_of(nodes).items():
        expected = evidence.scalars.get(module, ())
        is_loop = any(not p or f"{module}.".startswith(f"{p}.") for p in evidence.loops)
        if is_loop and len(entries) > len(expected):
            # It goes through more units than before, and computes with its numbers more often.
            wrong = next((entry for entry in entries if entry not in expected), None)
        else:
            wrong = _first_out_of_order(entries, expected)
        if wrong is not None:
            node = next(
                n
                for n in nodes
                if n.module == module and (n.operation.rstrip("_"), n.scalars) == wrong
            )
            return _at(node, f"computes with other numbers than before, {wrong[1]}")
    return None


_Entry = tuple[str, tuple[object, ...]]


def _first_out_of_order(entries: Sequence[_Entry], expected: Sequence[_Entry]) -> _Entry | None:
    """Find an entry that does not come in the order of what is expected.

    Args:
        entries: Operations and their numbers.
        expected: Those of the original, none of which has to be there.

    Returns:
        The first entry that is not found behind those before it.
    """
    place = 0
    for entry in entries:
        while place < len(expected) and expected[place] != entry:
            place += 1
        if place == len(expected):
            return entry
        place += 1
    return None


def _at(node: Node, message: str) -> Violation:
    return Violation(message, node.file, node.line, node.module, node.operation)


def _failure(error: Exception, tape: Tape) -> Violation:
    """Describe a forward that no longer runs, by the innermost line of the model's own code."""
    if isinstance(error, SecateurError):
        message = str(error)
    else:
        said = str(error).splitlines() or [f"{type(error).__name__} without a message"]
        message = f"does not run at another size: {said[0]}"
    calls = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in calls if not is_own_code(frame.filename)]
    last = tape.nodes[-1] if tape.nodes else None
    module = last.module if last else ""
    operation = last.operation if last else ""
    if not frames:
        return Violation(message, "", 0, module, operation)
    of_labels = calls[-1].filename.startswith(_LABELS)
    file, line = frames[-1].filename, frames[-1].lineno or 0
    return Violation(message, file, line, module, operation, of_labels=of_labels)
