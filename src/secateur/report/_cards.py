"""The headline figures of the report and the sentence that sums them up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from secateur.report import _text
from secateur.report._history import Curve, History


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One headline figure.

    Attributes:
        label: What it is.
        value: The figure.
        detail: What it is compared with.
        share: Filled part of the card's bar, in [0, 1]; None for no bar.
        tone: ``"muted"`` where the figure is not known.
    """

    label: str
    value: str
    detail: str
    share: float | None = None
    tone: Literal["plain", "muted"] = "plain"


def cards(run: History, dense: History | None) -> tuple[Card, ...]:
    """Make the headline figures.

    Args:
        run: The run.
        dense: The dense run beside it.

    Returns:
        Accuracy, MACs, parameters, latency and training time, in this order.
    """
    return (
        _accuracy(run, dense),
        _size("MACs left", run.macs_before, run.macs_after),
        _size("Parameters left", run.params_before, run.params_after),
        _latency(run),
        _time(run, dense),
    )


def summary(run: History, dense: History | None) -> str:
    """Say in two sentences what came out.

    Args:
        run: The run.
        dense: The dense run beside it.

    Returns:
        The sentences.
    """
    before = sum(family.units_before for family in run.families)
    after = sum(family.units_after for family in run.families)
    kept = sum(layer.is_kept for layer in run.layers)
    parts = []
    if before:
        parts.append(f"{after:,} of {_text.plural(before, 'unit')}")
    if run.layers:
        parts.append(f"{kept} of {_text.plural(len(run.layers), 'removable layer')}")
    if not parts:
        return "This run trained a network as it is; nothing was up for removal."
    verb = "stayed" if run.is_finished else "are left so far"
    sentence = f"{_text.joined(parts)} {verb}."
    if run.macs_before and run.macs_after is not None:
        share = _text.percent(run.macs_after / run.macs_before)
        sentence += f" The network takes {share} of the MACs it started with"
        sentence += f"{_against(run, dense)}."
    return sentence


def _against(run: History, dense: History | None) -> str:
    if run.test_accuracy is None:
        return ""
    reached = f" and reaches {_text.percent(run.test_accuracy)} on the test split"
    if dense is None or dense.test_accuracy is None:
        return reached
    return f"{reached}, where the dense network reaches {_text.percent(dense.test_accuracy)}"


def _accuracy(run: History, dense: History | None) -> Card:
    if run.test_accuracy is not None:
        detail = "no dense run to compare with"
        if dense is not None and dense.test_accuracy is not None:
            difference = _text.points(run.test_accuracy, dense.test_accuracy)
            detail = f"dense {_text.percent(dense.test_accuracy)}, {difference}"
        value = _text.percent(run.test_accuracy)
        return Card(label="Accuracy on test", value=value, detail=detail)
    latest = _latest(run.validation_accuracy)
    if latest is None:
        return _unknown("Accuracy on test", "not measured")
    detail = "last epoch; the test split was not measured"
    return Card(label="Accuracy on validation", value=_text.percent(latest), detail=detail)


def _latest(curve: Curve) -> float | None:
    known = [value for value in curve.values if value is not None]
    return known[-1] if known else None


def _size(label: str, before: float | None, after: float | None) -> Card:
    if not before or after is None:
        return _unknown(label, "not recorded")
    share = after / before
    detail = f"{_text.count(before)} → {_text.count(after)}"
    return Card(label=label, value=_text.percent(share), detail=detail, share=min(share, 1.0))


def _latency(run: History) -> Card:
    if not run.latency:
        return _unknown("Latency", "measured at the end" if not run.is_finished else "not measured")
    first, *others = run.latency
    times = f"{_text.milliseconds(first.before_seconds)} → "
    times += _text.milliseconds(first.after_seconds)
    detail = "; ".join(
        [
            f"{times} at batch {first.batch_size}",
            *(
                f"{_text.times(each.before_seconds, each.after_seconds)} at batch {each.batch_size}"
                for each in others
            ),
        ]
    )
    speed = _text.times(first.before_seconds, first.after_seconds)
    return Card(label=f"Speed at batch {first.batch_size}", value=speed, detail=detail)


def _time(run: History, dense: History | None) -> Card:
    if run.total_seconds is None:
        return _unknown("Training time", "no finished epoch")
    detail = "no dense run to compare with" if run.is_finished else "so far"
    if dense is not None and dense.total_seconds and run.is_finished:
        share = _text.percent(run.total_seconds / dense.total_seconds, 0)
        detail = f"{share} of the dense run's {_text.seconds(dense.total_seconds)}"
    return Card(label="Training time", value=_text.seconds(run.total_seconds), detail=detail)


def _unknown(label: str, detail: str) -> Card:
    return Card(label=label, value=_text.UNKNOWN, detail=detail, tone="muted")
