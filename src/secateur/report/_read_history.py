"""Turns the events of a run into its history."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from secateur.report._events import (
    Calibration,
    End,
    Epoch,
    EventLog,
    Notice,
    Remove,
    Settle,
    Start,
    Step,
)
from secateur.report._history import (
    Curve,
    FamilyHistory,
    History,
    Latency,
    LayerHistory,
    Removal,
)

BATCH = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sorted:
    """The events by kind, with the length of an epoch (None where there are no epochs)."""

    start: Start
    steps: tuple[Step, ...]
    epochs: tuple[Epoch, ...]
    removes: tuple[Remove, ...]
    notices: tuple[Notice, ...]
    calibrations: tuple[Calibration, ...]
    settle: Settle | None
    end: End | None
    last_step: int
    epoch_steps: float | None

    def time(self, step: int) -> float:
        return step / self.epoch_steps if self.epoch_steps else float(step)


def history_of(log: EventLog) -> History:
    """Turn the events of a run into its history.

    Args:
        log: The events of the run.

    Returns:
        The history, as far as the run came.
    """
    run = _sort(log)
    start, end = run.start, run.end
    method = start.method
    machine = start.machine if isinstance(start.machine, dict) else {"machine": start.machine}
    return History(
        model=start.model,
        data=start.data,
        seed=start.seed,
        method=method.name if method else "",
        settings=method.settings if method else {},
        machine={name: value for name, value in machine.items() if value is not None},
        versions=start.versions,
        clock="epoch" if run.epoch_steps else "step",
        last_step=run.last_step,
        last_time=run.time(run.last_step),
        total_steps=start.total_steps,
        is_finished=end is not None,
        is_torn=log.is_torn,
        unknown=log.unknown,
        notices=tuple(dict.fromkeys(event.message for event in run.notices if event.message)),
        macs_before=_finite(start.macs),
        macs_after=_last(record.macs for record in _states(run)),
        params_before=_finite(start.params),
        params_after=_last(record.params for record in _states(run)),
        validation_accuracy=_curve(run, ((e.step, e.validation_accuracy) for e in run.epochs)),
        macs_share=_macs_share(run),
        expected_macs_share=_curve(run, ((s.step, s.expected_macs_share) for s in run.steps)),
        price=_curve(run, ((s.step, s.price) for s in run.steps)),
        families=_families(run),
        layers=_layers(run),
        removals=tuple(_removal(run, event) for event in run.removes),
        settled_at=run.time(run.settle.step) if run.settle else None,
        calibration=_calibration(run),
        test_accuracy=_finite(end.test_accuracy) if end else None,
        training_macs=_curve(run, [(0, 0.0), *((e.step, e.training_macs) for e in run.epochs)]),
        training_seconds=_training_seconds(run),
        total_seconds=_total_seconds(run),
        total_training_macs=_total_training_macs(run),
        latency=_latency(end),
    )


def _sort(log: EventLog) -> _Sorted:
    epochs = tuple(event for event in log.events if isinstance(event, Epoch))
    settles = [event for event in log.events if isinstance(event, Settle)]
    ends = [event for event in log.events if isinstance(event, End)]
    return _Sorted(
        start=log.start,
        steps=tuple(event for event in log.events if isinstance(event, Step)),
        epochs=epochs,
        removes=tuple(event for event in log.events if isinstance(event, Remove)),
        notices=tuple(event for event in log.events if isinstance(event, Notice)),
        calibrations=tuple(event for event in log.events if isinstance(event, Calibration)),
        settle=settles[-1] if settles else None,
        end=ends[-1] if ends else None,
        last_step=max(event.step for event in (log.start, *log.events)),
        epoch_steps=epochs[-1].step / len(epochs) if epochs and epochs[-1].step else None,
    )


def _states(run: _Sorted) -> list[Start | Remove | Epoch | Settle | End]:
    """Every event that says how large the network is, oldest first."""
    states: list[Start | Remove | Epoch | Settle | End] = [run.start, *run.removes, *run.epochs]
    states += [event for event in (run.settle, run.end) if event]
    return sorted(states, key=lambda event: event.step)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _last(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if _finite(value) is not None]
    return known[-1] if known else None


def _curve(run: _Sorted, points: Iterable[tuple[int, float | None]]) -> Curve:
    pairs = [(run.time(step), _finite(value)) for step, value in points]
    return Curve(times=tuple(t for t, _ in pairs), values=tuple(v for _, v in pairs))


def _macs_share(run: _Sorted) -> Curve:
    """The live share from every event that knows it, so that removals show at their own step."""
    whole = _finite(run.start.macs)
    points = [(step.step, _finite(step.macs_share)) for step in run.steps]
    if whole:
        sizes = [(event.step, _finite(event.macs)) for event in _states(run)]
        points += [(step, macs / whole) for step, macs in sizes if macs is not None]
    known: list[tuple[int, float]] = [(s, share) for s, share in points if share is not None]
    # The network only shrinks: of two sizes at one step the smaller one is the later.
    known.sort(key=lambda point: (point[0], -point[1]))
    if known and known[-1][0] < run.last_step:
        known.append((run.last_step, known[-1][1]))
    return _curve(run, known)


def _families(run: _Sorted) -> tuple[FamilyHistory, ...]:
    after = {family.name: family.units for family in run.start.families}
    for event in run.removes:
        for name, units in event.units.items():
            after[name] = after.get(name, len(units)) - len(units)
    after.update(run.settle.kept_units if run.settle else {})
    after.update({n: w[1] for n, w in run.end.widths.items()} if run.end else {})
    # Units that vanished together with their layer are in no removal of their own.
    for step in run.steps:
        after.update({n: min(after[n], _live(p)) for n, p in step.theta.items() if n in after})
    return tuple(
        FamilyHistory(
            name=family.name,
            kind=family.kind,
            units_before=family.units,
            units_after=after[family.name],
            theta=_theta(run, family.name),
        )
        for family in run.start.families
    )


def _theta(run: _Sorted, name: str) -> tuple[Curve, Curve, Curve, Curve, Curve]:
    known = [s for s in run.steps if len(s.theta.get(name, ())) >= 5 and _live(s.theta[name]) > 0]
    low, first, middle, third, high = (
        _curve(run, ((step.step, step.theta[name][i]) for step in known)) for i in range(5)
    )
    return low, first, middle, third, high


def _live(points: tuple[float | None, ...]) -> int:
    """How many units a summary of theta is about, its sixth entry; where it is missing, many."""
    live = _finite(points[5]) if len(points) > 5 else None
    return sys.maxsize if live is None else max(0, round(live))


def _layers(run: _Sorted) -> tuple[LayerHistory, ...]:
    gone: dict[str, Remove | Settle | End] = {}
    for event in run.removes:
        gone.update({name: event for name in event.layers if name not in gone})
    if run.settle and run.settle.kept_layers is not None:
        rounded = set(run.start.layers) - set(run.settle.kept_layers) - set(gone)
        gone.update(dict.fromkeys(rounded, run.settle))
    if run.end:
        gone.update({name: run.end for name in run.end.removed_layers if name not in gone})
    return tuple(
        LayerHistory(
            name=name,
            is_kept=name not in gone,
            removed_at=_removed_at(run, gone.get(name)),
            worth=_worth(gone.get(name), name),
            phi=_curve(run, ((s.step, s.phi[name]) for s in run.steps if name in s.phi)),
        )
        for name in run.start.layers
    )


def _removed_at(run: _Sorted, event: Remove | Settle | End | None) -> float | None:
    # An `end` only knows that the layer is gone, not when it went.
    return None if event is None or isinstance(event, End) else run.time(event.step)


def _worth(event: Remove | Settle | End | None, name: str) -> float | None:
    return _finite(event.worth.get(name)) if isinstance(event, Remove) else None


def _removal(run: _Sorted, event: Remove) -> Removal:
    worth = {name: _finite(value) for name, value in event.worth.items()}
    return Removal(
        step=event.step,
        time=run.time(event.step),
        units={name: len(units) for name, units in event.units.items() if units},
        layers=event.layers,
        worth={name: value for name, value in worth.items() if value is not None},
        price=_price(run, event),
        macs=_finite(event.macs),
        params=_finite(event.params),
        max_difference=event.max_difference,
    )


def _price(run: _Sorted, event: Remove) -> float | None:
    """The price of a removal; where it does not say, the one last recorded before it."""
    before = (step.price for step in run.steps if step.step <= event.step)
    return _last([*before, event.price])


def _calibration(run: _Sorted) -> dict[str, float]:
    factor: dict[str, float] = {}
    for event in run.calibrations:
        known = {name: _finite(value) for name, value in event.factor.items()}
        factor.update({name: value for name, value in known.items() if value is not None})
    return factor


def _training_seconds(run: _Sorted) -> Curve:
    """Seconds after each epoch: added up where each epoch was timed, else read off the clock."""
    timed = [event.epoch_seconds for event in run.epochs]
    spent = [seconds for seconds in timed if seconds is not None]
    totals = accumulate(spent) if len(spent) == len(timed) else [e.seconds for e in run.epochs]
    points = zip((event.step for event in run.epochs), totals, strict=True)
    return _curve(run, [(0, 0.0), *points])


def _total_seconds(run: _Sorted) -> float | None:
    if run.end and _finite(run.end.train_seconds) is not None:
        return run.end.train_seconds
    return _last(_training_seconds(run).values[1:])


def _total_training_macs(run: _Sorted) -> float | None:
    spent = [event.training_macs for event in run.epochs]
    return _last([*spent, run.end.training_macs] if run.end else spent)


def _latency(end: End | None) -> tuple[Latency, ...]:
    measured = []
    for batch, record in (end.latency if end else {}).items():
        before, after = _finite(record.before), _finite(record.after)
        if BATCH.fullmatch(batch) and before and after and min(before, after) > 0:
            measured.append(
                Latency(batch_size=int(batch), before_seconds=before, after_seconds=after)
            )
    return tuple(sorted(measured, key=lambda latency: latency.batch_size))
