"""The history of a run: small frozen records of what the report shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

MOST = 1e15
"""Beyond this no setting means anything, and a longer integer is no float any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A quantity over time; a value is None where the run did not know it or it was not finite.

    Attributes:
        times: In epochs, or in steps where the run has no epochs.
        values: As many as times.
    """

    times: tuple[float, ...]
    values: tuple[float | None, ...]

    def __bool__(self) -> bool:
        """Tell whether there is anything to draw."""
        return any(value is not None for value in self.values)


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyHistory:
    """A family of units through the run.

    Attributes:
        name: As the structure names it.
        kind: What its units are (channels, heads, ...).
        units_before: Units at the start.
        units_after: Units left.
        theta: Keep parameters of its units: minimum, quartile, median, quartile, maximum.
    """

    name: str
    kind: str
    units_before: int
    units_after: int
    theta: tuple[Curve, Curve, Curve, Curve, Curve]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerHistory:
    """A removable layer through the run.

    Attributes:
        name: As the structure names it.
        is_kept: False once it is gone.
        removed_at: When it went; None where it stayed or the time is not known.
        worth: Its worth relative to its price when it went.
        phi: Its keep parameter.
    """

    name: str
    is_kept: bool
    removed_at: float | None
    worth: float | None
    phi: Curve


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One removal: what went, what it was worth, and what was left.

    Attributes:
        step: Optimizer steps taken.
        time: The same on the clock of the curves.
        units: How many units went, by family.
        layers: The layers that went.
        worth: Worth relative to the price, by family or layer; 1 is worth exactly its price.
        price: In nats per 100 % of complexity.
        macs: MACs left afterwards.
        params: Parameters left afterwards.
        max_difference: Largest difference between masked and smaller network, where measured.
    """

    step: int
    time: float
    units: Mapping[str, int]
    layers: tuple[str, ...]
    worth: Mapping[str, float]
    price: float | None
    macs: float | None
    params: float | None
    max_difference: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Measured seconds of one forward pass at a batch size."""

    batch_size: int
    before_seconds: float
    after_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Everything the report shows of one run.

    Attributes:
        model: What was trained, in the user's words.
        data: On what.
        seed: The run's seed.
        method: Name of the method.
        settings: Its settings.
        machine: What it ran on.
        versions: Of the software.
        clock: Unit of all times: ``"epoch"`` or ``"step"``.
        last_step: Step of the last event.
        last_time: The same on the clock of the curves.
        total_steps: Steps the run was planned for.
        is_finished: True where the run wrote its ``end``.
        is_torn: True where the last line of the events was cut off.
        unknown: Kinds of events that were left out.
        notices: What the run itself had to say, each once.
        macs_before: Multiply-accumulates of one example at the start.
        macs_after: The same at the end, or as far as the run came.
        params_before: Parameters at the start.
        params_after: Parameters at the end, or as far as the run came.
        validation_accuracy: After each epoch, in [0, 1].
        macs_share: MACs of the live network as a share of those at the start.
        expected_macs_share: The same in expectation over the gates.
        price: In nats per 100 % of complexity.
        families: In the order of the network.
        layers: In the order of the network.
        removals: In order of time.
        settled_at: When the search ended.
        calibration: Last measured scale of the units' worth, by family.
        test_accuracy: In [0, 1].
        training_macs: Multiply-accumulates spent on training so far, after each epoch.
        training_seconds: Seconds spent on training so far, after each epoch.
        total_seconds: Seconds of the whole training.
        total_training_macs: Multiply-accumulates of the whole training.
        latency: By rising batch size.
    """

    model: str
    data: str
    seed: int | None
    method: str
    settings: Mapping[str, JsonValue]
    machine: Mapping[str, JsonValue]
    versions: Mapping[str, JsonValue]
    clock: str
    last_step: int
    last_time: float
    total_steps: int | None
    is_finished: bool
    is_torn: bool
    unknown: tuple[str, ...]
    notices: tuple[str, ...]
    macs_before: float | None
    macs_after: float | None
    params_before: float | None
    params_after: float | None
    validation_accuracy: Curve
    macs_share: Curve
    expected_macs_share: Curve
    price: Curve
    families: tuple[FamilyHistory, ...]
    layers: tuple[LayerHistory, ...]
    removals: tuple[Removal, ...]
    settled_at: float | None
    calibration: Mapping[str, float]
    test_accuracy: float | None
    training_macs: Curve
    training_seconds: Curve
    total_seconds: float | None
    total_training_macs: float | None
    latency: tuple[Latency, ...]

    def setting(self, name: str) -> float | None:
        """Look up a number among the settings of the method."""
        value = self.settings.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return None
        return float(value) if abs(value) < MOST else None
