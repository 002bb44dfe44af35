"""Reads the events of a run folder and says by file and line what is wrong with a damaged one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from secateur.errors import StorageError

EVENTS_FILE = "events.jsonl"

Count = Annotated[int, Field(ge=0, le=2**53)]
"""A number of things that a float holds exactly."""


class Event(BaseModel):
    """One line of events.jsonl.

    Attributes:
        event: Its kind.
        step: Optimizer steps taken when it was written.
        seconds: Seconds since the run started.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    event: str
    step: Count
    seconds: float = 0.0


class FamilyRecord(BaseModel):
    """A family of units as the run started with it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    kind: str = ""
    units: Count


class MethodRecord(BaseModel):
    """The method that decided what goes, with its settings."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str = ""
    settings: dict[str, JsonValue] = Field(default_factory=dict)


class LatencyRecord(BaseModel):
    """Measured seconds of one forward pass, before and after."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    before: float | None = None
    after: float | None = None


class Start(Event):
    """The first event: what was trained, and with which method."""

    model: str = ""
    data: str = ""
    seed: int | None = None
    method: MethodRecord | None = None
    total_steps: Count | None = None
    macs: float | None = None
    params: float | None = None
    families: tuple[FamilyRecord, ...] = ()
    layers: tuple[str, ...] = ()
    machine: dict[str, JsonValue] | str | None = None
    versions: dict[str, JsonValue] = Field(default_factory=dict)


class Step(Event):
    """The state of the search about a hundred times a run."""

    loss: float | None = None
    price: float | None = None
    macs_share: float | None = None
    expected_macs_share: float | None = None
    theta: dict[str, tuple[float | None, ...]] = Field(default_factory=dict)
    phi: dict[str, float | None] = Field(default_factory=dict)


class Epoch(Event):
    """The state of the training after an epoch; ``training_macs`` counts from the start."""

    train_loss: float | None = None
    train_accuracy: float | None = None
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    macs: float | None = None
    params: float | None = None
    epoch_seconds: float | None = None
    training_macs: float | None = None


class Calibration(Event):
    """What the measured probes found."""

    factor: dict[str, float | None] = Field(default_factory=dict)
    layers: dict[str, float | None] = Field(default_factory=dict)


class Remove(Event):
    """Structures that went for good, with what they were worth relative to their price."""

    units: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    layers: tuple[str, ...] = ()
    worth: dict[str, float | None] = Field(default_factory=dict)
    price: float | None = None
    macs: float | None = None
    params: float | None = None
    max_difference: float | None = None


class Notice(Event):
    """Something the user of the run should know."""

    message: str = ""


class Settle(Event):
    """The search is over: every parameter was rounded."""

    macs: float | None = None
    params: float | None = None
    kept_units: dict[str, Count] = Field(default_factory=dict)
    kept_layers: tuple[str, ...] | None = None


class End(Event):
    """The last event: the figures of the finished network."""

    test_accuracy: float | None = None
    test_loss: float | None = None
    macs: float | None = None
    params: float | None = None
    train_seconds: float | None = None
    latency: dict[str, LatencyRecord] = Field(default_factory=dict)
    widths: dict[str, tuple[Count, Count]] = Field(default_factory=dict)
    removed_layers: tuple[str, ...] = ()
    training_macs: float | None = None


KINDS: dict[str, type[Event]] = {
    "start": Start,
    "step": Step,
    "epoch": Epoch,
    "calibration": Calibration,
    "remove": Remove,
    "notice": Notice,
    "settle": Settle,
    "end": End,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """The events of a run as its file holds them.

    Attributes:
        start: The first event.
        events: Every later event of a known kind, in the order of the file.
        is_torn: True where the last line was cut off, as a killed process leaves it.
        unknown: Kinds of events that were left out because they are not known here.
    """

    start: Start
    events: tuple[Event, ...]
    is_torn: bool
    unknown: tuple[str, ...]


def read_events(run: Path) -> EventLog:
    """Read the events of a run folder.

    A resumed run writes a second ``start``; what the file holds beyond that step was done again
    and is left out.

    Args:
        run: The run folder.

    Returns:
        The events, checked against their schema.

    Raises:
        StorageError: The file is missing, holds no ``start``, or a line of it is damaged.
    """
    path = Path(run) / EVENTS_FILE
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read ({error.strerror or error}). A run folder with an "
            f"{EVENTS_FILE} was expected; give the folder that `secateur train` wrote."
        ) from error
    torn = _is_torn(lines[-1])
    if torn:
        lines.pop()
    events: list[Event] = []
    unknown: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        event = _parse(line, path=path, number=number)
        if isinstance(event, Start):
            _rewind(events, event)
        elif type(event) is Event:
            unknown.add(event.event)
        if type(event) is not Event:
            events.append(event)
    if not events or not isinstance(events[0], Start):
        found = f"starts with a {events[0].event!r} event" if events else "holds no event yet"
        raise StorageError(
            f"{path} {found}. Its first line must be a 'start' event; let the run begin, or "
            "restore the beginning of the file."
        )
    later = tuple(event for event in events[1:] if not isinstance(event, Start))
    return EventLog(start=events[0], events=later, is_torn=torn, unknown=tuple(sorted(unknown)))


def _is_torn(last_line: bytes) -> bool:
    """Tell whether the text after the last line break is a line that was cut off."""
    if not last_line.strip():
        return False
    try:
        json.loads(last_line)
    except (ValueError, RecursionError):
        return True
    return False


def _rewind(events: list[Event], start: Start) -> None:
    """Drop what lies beyond the step from which a run was resumed."""
    while events and events[-1].step > start.step:
        events.pop()


def _parse(line: bytes, *, path: Path, number: int) -> Event:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, number, f"is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise _damaged(path, number, f"holds a {type(record).__name__} instead of an object")
    name = record.get("event")
    kind = KINDS.get(name, Event) if isinstance(name, str) else Event
    try:
        return kind.model_validate(record)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise _damaged(path, number, f"has a wrong field {field!r} ({first['msg']})") from error


def _damaged(path: Path, number: int, what: str) -> StorageError:
    return StorageError(
        f"{path}, line {number} {what}. Every line must be one event as secateur writes it; "
        "restore the file from a copy, or delete that line and ask for the report again."
    )
