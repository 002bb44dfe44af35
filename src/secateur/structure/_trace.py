"""`trace`: find the structure of a model by running it once on the meta device.

Where the forward was given the size of a labelled axis as a number, the number may be kept
somewhere and go stale. Such a model is tried out at a larger size before it is believed: units that
meet a line which fails there are fixed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from secateur.errors import TraceError
from secateur.structure._allowance import Allowance
from secateur.structure._assemble import cost, families, fixed_axes
from secateur.structure._branches import find_layers
from secateur.structure._collector import without_collector
from secateur.structure._evidence import Evidence, Places, places_of, scalars_of, vanished_with
from secateur.structure._explain import Grounds
from secateur.structure._heads import head_reshapes
from secateur.structure._inventory import Inventory, fresh_twins, take_inventory
from secateur.structure._label import Ids
from secateur.structure._mode import watched_mode
from secateur.structure._proof import Violation, find_violation
from secateur.structure._solve import Solution, solve
from secateur.structure._split import Place
from secateur.structure._stage import Stage
from secateur.structure._stored import stored_sizes
from secateur.structure._structure import Family, Reason, StoredSize, Structure
from secateur.structure._tape import Node, Statistic, Tape
from secateur.structure._units import Units, number_units
from secateur.structure._variant import Variant, larger, narrowed

Example = tuple[tuple[Any, ...], dict[str, Any]]


def trace(
    model: nn.Module,
    example_inputs: Any,
    *,
    allow_inexact: bool = False,
    head_dims: bool = False,
    max_seconds: float = 60.0,
    max_operations: float = 200_000,
) -> Structure:
    """Find what a model is made of: families of units, removable layers, and what they cost.

    The forward runs once, on meta tensors: nothing is computed, no memory is taken for weights,
    and the model is left as it was. A model with parameters that the forward in evaluation mode
    does not use (auxiliary heads), with a router, or whose code branches on `self.training`, runs
    once more in training mode.

    Args:
        model: Any module.
        example_inputs: A tensor, a tuple of positional arguments or a dict of keyword arguments.
            Costs are those of one forward of this example, its whole batch.
        allow_inexact: Whether units that share a statistic (channels under LayerNorm, RMSNorm or
            GroupNorm) may be removed. Removing one is then not the same as silencing it.
        head_dims: Whether the units of attention are positions inside its heads, which leave all
            heads alike, rather than whole heads. The model then runs twice.
        max_seconds: Seconds after which the trace ends with an error.
        max_operations: Operations of one forward after which the trace ends with an error.

    Returns:
        The structure; ``print`` shows it as a table.

    Raises:
        TraceError: The forward cannot be followed, such as when its shapes depend on the data, or
            takes more than it may.
        UsageError: A limit is not above zero.

    Example:
        >>> import torch, secateur
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> structure = secateur.trace(net, torch.zeros(1, 8))
        >>> [(family.name, family.num_units) for family in structure.families]
        [('0', 4)]
    """
    allowance = Allowance(max_seconds, max_operations)
    with without_collector():
        return _traced(model, as_example(example_inputs), allow_inexact, head_dims, allowance)


def _traced(
    model: nn.Module, example: Example, allow_inexact: bool, head_dims: bool, allowance: Allowance
) -> Structure:
    run = _recorded(model, example, allowance)
    if head_dims:
        heads = solve(run.tape, run.inventory.infos, allow_inexact=allow_inexact)
        inside = head_reshapes(run.tape, heads.component)
        run = _recorded(model, example, allowance, inside)
    trial = _Trial(model, example, run, allow_inexact)
    trial.settle()
    tape, tensors = run.tape, run.inventory.infos
    solution = trial.solution
    unit = np.where(solution.free[solution.component], solution.component, ~solution.component)
    found = find_layers(tape, tensors, unit)
    return Structure(
        families=trial.families,
        layers=found.layers,
        fixed=(*fixed_axes(tape, trial.solution, tensors), *found.fixed),
        tensors=tensors,
        cost=cost(tape, trial.solution, trial.units, tensors, found.layers, found.nodes),
        example=example,
        grounds=trial.grounds(),
        stored=trial.stored(),
        evidence=dataclasses.replace(
            trial.evidence(),
            vanished=vanished_with(
                tape.nodes,
                [
                    nodes | {addition}
                    for nodes, addition in zip(found.nodes, found.additions, strict=True)
                ],
                run.places,
            ),
        ),
    )


def as_example(example_inputs: Any) -> Example:
    """Turn what users pass as example inputs into positional and keyword arguments.

    Args:
        example_inputs: A tensor, a tuple or list of positional arguments, or a dict of keyword
            ones.

    Returns:
        Positional and keyword arguments.
    """
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


@dataclass(frozen=True, slots=True)
class _Run:
    """A recorded forward: the tape of evaluation mode, and all nodes of both modes."""

    inventory: Inventory
    tape: Tape
    nodes: list[Node]
    places: tuple[Places, ...]
    modes: tuple[bool, ...]
    statistics: tuple[tuple[Statistic, ...], ...]


def _recorded(
    model: nn.Module,
    example: Example,
    allowance: Allowance,
    inside: frozenset[Place] | None = None,
) -> _Run:
    inventory = take_inventory(model)
    tape = Tape(allowance=allowance, inside=inside)
    stage = Stage(model, fresh_twins(inventory, tape), inventory.names)
    with watched_mode() as reads:
        _run(stage, tape, example, training=False)
    used = {name for node in tape.nodes for name in node.tensors}
    parameters = {name for name, info in inventory.infos.items() if info.is_parameter}
    once = _Run(
        inventory, tape, tape.nodes, (places_of(tape.nodes),), (False,), (tuple(tape.statistics),)
    )
    if parameters <= used and not reads.has_branch and not tape.choices:
        return once
    second = tape.second_pass()
    try:
        _run(stage, second, example, training=True)
    except TraceError:
        if parameters <= used:
            return once  # training may need what the example does not have, such as targets
        raise
    finally:
        tape.num_ids = second.num_ids
    return _Run(
        inventory=inventory,
        tape=tape,
        nodes=tape.nodes + second.nodes,
        places=(places_of(tape.nodes), places_of(second.nodes)),
        modes=(False, True),
        statistics=(tuple(tape.statistics), tuple(second.statistics)),
    )


def _run(stage: Stage, tape: Tape, example: Example, *, training: bool) -> None:
    try:
        with stage.open(training=training):
            stage.run(tape, example)
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        if isinstance(error, TraceError):
            raise
        mode = "training" if training else "evaluation"
        where = tape.reason("the forward stopped") if tape.nodes else "before the first operation"
        raise TraceError(
            f"The model cannot be traced in {mode} mode: {where}: {error}. Expected a forward that "
            "runs on meta tensors with the example inputs. Check that the example inputs fit the "
            "model, and that the forward makes no tensors of its own on a fixed device."
        ) from error


class _Trial:
    """Units as far as they are believed: solved, tried at a larger size, fixed where that fails."""

    def __init__(self, model: nn.Module, example: Example, run: _Run, allow_inexact: bool) -> None:
        self._model = model
        self._example = example
        self._recorded = run
        self._allow_inexact = allow_inexact
        self._failed: set[tuple[str, int]] = set()
        self.solution: Solution
        self.units: Units
        self.families: tuple[Family, ...]
        self._solve()

    def _solve(self) -> None:
        tape, tensors = self._recorded.tape, self._recorded.inventory.infos
        self.solution = solve(tape, tensors, allow_inexact=self._allow_inexact)
        self.units = number_units(tape, self.solution)
        self.families = families(tape, self.solution, self.units, tensors)

    def evidence(self) -> Evidence:
        """Return the wiring found so far."""
        return Evidence(
            ranges=self._recorded.tape.ranges,
            made=self._recorded.tape.made,
            component=self.solution.component,
            family=self.units.family,
            scalars=scalars_of(self._recorded.nodes),
            places=self._recorded.places,
            groupings=self._recorded.tape.groupings,
            equal_parts=self._recorded.tape.equal_parts,
            inside=self._recorded.tape.inside,
            modes=self._recorded.modes,
            statistics=self._recorded.statistics,
            loops=frozenset(
                self._recorded.tape.nodes[number].module for number in self._recorded.tape.shares
            ),
        )

    def stored(self) -> tuple[StoredSize, ...]:
        """Return the numbers in modules that follow the units found so far."""
        return stored_sizes(self._recorded.tape.uses, self.solution.component, self.units)

    def grounds(self) -> Grounds:
        """Return what explains why units are fixed."""
        tape, solution = self._recorded.tape, self.solution
        return Grounds(
            ranges=tape.ranges,
            component=solution.component,
            blame=solution.blame,
            reasons=solution.reasons,
            freezes=tape.freezes,
            inexact=tape.inexact,
        )

    def settle(self) -> None:
        """Add one unit to every family until the larger model passes the proof check."""
        inventory = self._recorded.inventory
        self._tie()
        while self._in_doubt():
            for variant in self._variants():
                self._check_allowance()
                violation = find_violation(self._model, inventory, variant, self._example)
                if violation is not None:
                    break
            else:
                return
            self._fix(violation)
            self._solve()

    def _variants(self) -> Iterator[Variant]:
        """Yield the model at the sizes it is tried at."""
        given = self.evidence(), self.families, self.stored()
        yield larger(*given)
        if self._recorded.tape.cuts:
            yield narrowed(*given)

    def _check_allowance(self) -> None:
        tape = self._recorded.tape
        if tape.allowance is not None:
            tape.allowance.check(
                len(tape.nodes), lambda: tape.reason("it tries the model at another size")
            )

    def _in_doubt(self) -> bool:
        """Tell whether a doubtful line meets units that may go."""
        free, component = self.solution.free, self.solution.component
        labels = (label for node in self._recorded.tape.doubts for label in node.labels)
        return any(free[component[label.ids]].any() for label in labels)

    def _tie(self) -> None:
        """Let axes lose the same units that the model's code takes to be equally long."""
        tape = self._recorded.tape
        found = [tie for tie in tape.ties if self._is_open(tie[0], tie[1])]
        if found:
            tape.edges += found
            self._solve()

    def _is_open(self, a: Ids, b: Ids) -> bool:
        """Tell whether two axes may lose units, and may not lose the same number of positions."""
        free, component = self.solution.free, self.solution.component
        one, other = component[a], component[b]
        both_free = bool(free[one].any() and free[other].any())
        return both_free and not np.array_equal(np.sort(one), np.sort(other))

    def _kept_sizes(self, violation: Violation) -> str:
        """Name the numbers in modules that the line which failed was given."""
        uses = [
            use.source
            for use in self._recorded.tape.uses
            if (use.file, use.line) == (violation.file, violation.line)
        ]
        if not uses:
            return ""
        slots = dict.fromkeys(slot for module, slot in uses if module == uses[0][0])
        return f"; it uses {', '.join(slots)} of module {uses[0][0] or 'the model'!r}"

    def _fix(self, violation: Violation) -> None:
        """Fix what is wrong, or what meets the line which failed: where it did, then everywhere."""
        nodes, line = self._recorded.nodes, (violation.file, violation.line)
        same_line = [n for n in nodes if (n.file, n.line) == line]
        same_module = [n for n in nodes if n.module == violation.module]
        here = [n for n in same_line if n.module == violation.module and line not in self._failed]
        wider = [same_line, same_module]
        if violation.of_labels:
            wider.reverse()
        else:
            self._failed.add(line)
        met = [
            [label.ids.ravel() for node in suspects for label in node.labels]
            for suspects in (here, *wider, self._recorded.tape.doubts)
        ]
        if violation.ids is not None:
            met.insert(0, [violation.ids % len(self.solution.component)])
        for ids in met:
            if not ids:
                continue
            free = np.unique(np.concatenate(ids))
            free = free[self.solution.free[self.solution.component[free]]]
            if len(free):
                reason = Reason(
                    message=f"would go wrong at another size: {violation.message}"
                    + self._kept_sizes(violation),
                    module=violation.module,
                    operation=violation.operation,
                    source=f"{violation.file}:{violation.line}",
                )
                self._recorded.tape.freezes.append((free, reason))
                return
        raise TraceError(
            f"The model fails at another size, and no unit can be blamed: {violation}. Expected "
            "a forward whose sizes follow from its tensors. Please report the model."
        )
