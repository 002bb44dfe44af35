"""All figures of a comparison: cell by cell, and method by method over the seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean, stdev

from secateur.compare._cell import Cell
from secateur.compare._config import CompareConfig
from secateur.compare._result import Result

DENSE = "dense"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A method at one budget, over the seeds that are finished.

    Attributes:
        method: Its name.
        budget: Share of the MACs to end at; None for the full network.
        seeds: Number of finished seeds.
        accuracies: Test accuracy of every finished seed, in [0, 1].
        accuracy: Their mean.
        spread: Standard deviation over the seeds; None for a single one.
        macs: Mean MACs, as a share of the full network's.
        params: Mean parameters, as a share of the full network's.
        seconds: Batch size to the seconds of a forward pass, averaged.
        speedup: Batch size to the full network's seconds, measured in turn, over these.
        training_macs: Mean MACs of the bill, as a multiple of the dense training's of the same
            seed; None while no dense training has ended.
        training_seconds: The same of the seconds.
        macs_of: Part of the bill to its mean MACs, in the same unit.
        seconds_of: Part of the bill to its mean seconds, in the same unit.
    """

    method: str
    budget: float | None
    seeds: int
    accuracies: tuple[float, ...]
    accuracy: float
    spread: float | None
    macs: float
    params: float
    seconds: dict[int, float]
    speedup: dict[int, float]
    training_macs: float | None
    training_seconds: float | None
    macs_of: dict[str, float]
    seconds_of: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The state of a comparison.

    Attributes:
        config: Its settings.
        cells: Every cell with its result; None for one that is not finished.
    """

    config: CompareConfig
    cells: tuple[tuple[Cell, Result | None], ...]

    @property
    def finished(self) -> list[tuple[Cell, Result]]:
        """The cells that have a result."""
        return [(cell, result) for cell, result in self.cells if result is not None]

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """Every method at every budget of which a seed is finished, in the order of the config."""
        dense = {cell.seed: result for cell, result in self.finished if cell.method == DENSE}
        groups: dict[tuple[str, float | None], list[tuple[Cell, Result]]] = {}
        for cell, result in self.finished:
            groups.setdefault((cell.method, cell.budget), []).append((cell, result))
        order = {(cell.method, cell.budget): None for cell, _ in self.cells}
        return tuple(_row(groups[name], dense) for name in order if name in groups)


def _row(members: Sequence[tuple[Cell, Result]], dense: dict[int, Result]) -> Row:
    cell = members[0][0]
    results = [result for _, result in members]
    accuracies = [result.test_accuracy for result in results]
    pairs = [(result, dense[cell.seed]) for cell, result in members if cell.seed in dense]
    parts = list(dict.fromkeys(item.what for result in results for item in result.bill))
    sizes = list(results[0].latency)

    def multiple(whole: Callable[[Result], float], part: Callable[[Result], float]) -> float:
        return mean(part(own) / whole(other) for own, other in pairs)

    def macs(what: str) -> Callable[[Result], float]:
        return lambda result: sum(item.macs for item in result.bill if item.what == what)

    def seconds(what: str) -> Callable[[Result], float]:
        return lambda result: sum(item.seconds for item in result.bill if item.what == what)

    return Row(
        method=cell.method,
        budget=cell.budget,
        seeds=len(results),
        accuracies=tuple(accuracies),
        accuracy=mean(accuracies),
        spread=stdev(accuracies) if len(accuracies) > 1 else None,
        macs=mean(result.macs_share for result in results),
        params=mean(result.params_share for result in results),
        seconds={s: mean(result.latency[s].own for result in results) for s in sizes},
        speedup={
            s: mean(result.latency[s].dense / result.latency[s].own for result in results)
            for s in sizes
        },
        training_macs=multiple(_macs, _macs) if pairs else None,
        training_seconds=multiple(_seconds, _seconds) if pairs else None,
        macs_of={what: multiple(_macs, macs(what)) for what in parts} if pairs else {},
        seconds_of={what: multiple(_seconds, seconds(what)) for what in parts} if pairs else {},
    )


def _macs(result: Result) -> float:
    return result.total.macs


def _seconds(result: Result) -> float:
    return result.total.seconds
