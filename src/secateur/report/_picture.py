"""Draws a run as one small picture: accuracy and MACs over time beside the widths it found."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from secateur.errors import UsageError
from secateur.report import _text
from secateur.report._events import read_events
from secateur.report._history import Curve, FamilyHistory, History
from secateur.report._read_history import history_of
from secateur.report._templates import templates
from secateur.report._widths import scales
from secateur.report._write import write_beside

NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
"""Characters that a name can hold and an XML file cannot, not even escaped."""
LEFT, WIDTH = 84.0, 446.0
"""Where the curves stand in the picture, in its own pixels."""
ACCURACY, MACS = (142.0, 118.0), (322.0, 82.0)
"""Upper edge and height of the two storeys."""
BARS_LEFT, BARS_TOP, BARS_WIDTH, BARS_HEIGHT = 700.0, 142.0, 158.0, 262.0
BARS_EDGE, BARS_WHOLE = 572.0, 356.0
WHOLE_TIMES = 4
MOST_NAMED = 16
"""So many families have their names beside the bars; more of them would not be readable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A family as a bar of the picture, in pixels."""

    left: float
    top: float
    height: float
    before: float
    after: float
    name: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A labelled position on an axis, in pixels."""

    place: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Turns times and values into pixels.

    Attributes:
        end: Where the time axis ends.
        low: Value at the lower edge.
        high: Value at the upper edge.
        top: Upper edge in pixels.
        height: In pixels.
    """

    end: float
    low: float
    high: float
    top: float
    height: float

    def x(self, time: float) -> float:
        """Place a time."""
        return round(LEFT + WIDTH * time / self.end, 1)

    def y(self, value: float) -> float:
        """Place a value."""
        return round(
            self.top + self.height * (self.high - value) / (self.high - self.low),
            1,
        )

    def path(self, curve: Curve) -> str:
        """Join the points of a curve; where a value is missing the line is joined over it."""
        return _path((self.x(time), self.y(value)) for time, value in _known(curve))

    def stairs(self, curve: Curve) -> str:
        """Join the points of a quantity that keeps its value until the next point."""
        corners: list[tuple[float, float]] = []
        for time, value in _known(curve):
            if corners:
                corners.append((self.x(time), corners[-1][1]))
            corners.append((self.x(time), self.y(value)))
        # Where the value stayed, the corner and the point fall together.
        return _path(dict.fromkeys(corners))


def write_picture(run: Path, path: Path, *, baseline: Path | None = None) -> Path:
    """Draw a run as an SVG picture that reads well on light and on dark pages.

    Args:
        run: Folder of the run.
        path: Where to write; ends in ``.svg``.
        baseline: Folder of a dense run of the same job, to compare with.

    Returns:
        The path.

    Raises:
        StorageError: Events are missing or damaged, or the picture cannot be written.
        UsageError: The path does not end in ``.svg``, or the run recorded no sizes to draw.
    """
    path = Path(path)
    if path.suffix != ".svg":
        raise UsageError(
            f"The picture was asked for as {path.name!r}. Pictures are written as SVG; "
            "give a path that ends in .svg."
        )
    found = history_of(read_events(run))
    dense = history_of(read_events(baseline)) if baseline is not None else None
    if not found.macs_share or not found.last_step:
        raise UsageError(
            f"The run in {run} has recorded no MACs after its first step. A picture needs some "
            "steps to draw; let the run go on and ask again."
        )
    return write_beside(path, NOT_XML.sub("\N{REPLACEMENT CHARACTER}", draw(found, dense)))


def draw(run: History, dense: History | None) -> str:
    """Draw the picture.

    Args:
        run: The run; its MACs are known.
        dense: The dense run beside it.

    Returns:
        The SVG.
    """
    end = max(run.last_time, dense.last_time if dense else 0.0)
    known = dense.validation_accuracy if dense else Curve(times=(), values=())
    accuracy = _accuracy_frame(end, (run.validation_accuracy, known))
    macs = Frame(end=end, low=0.0, high=1.0, top=MACS[0], height=MACS[1])
    whole = run.macs_before or 1.0
    return (
        templates()
        .get_template("picture.svg")
        .render(
            heading=_text.short(_text.subject(run.model, run.data) or "a run", 48),
            headline=_headline(run, dense),
            left=LEFT,
            right=LEFT + WIDTH,
            accuracy=accuracy if run.validation_accuracy else None,
            macs=macs,
            found_path=accuracy.path(run.validation_accuracy),
            dense_path=accuracy.path(known),
            macs_path=macs.stairs(run.macs_share),
            accuracy_ticks=_accuracy_ticks(accuracy),
            macs_ticks=[Tick(place=macs.y(v), label=_text.percent(v, 0)) for v in (0, 0.5, 1)],
            time_ticks=_time_ticks(macs),
            diamonds=[
                (macs.x(removal.time), macs.y(removal.macs / whole))
                for removal in run.removals
                if removal.layers and removal.macs is not None
            ],
            settled=None if run.settled_at is None else macs.x(run.settled_at),
            clock=run.clock,
            bars=_bars(run.families),
            layers=_layers(run),
        )
    )


def _known(curve: Curve) -> list[tuple[float, float]]:
    pairs = zip(curve.times, curve.values, strict=True)
    return [(time, value) for time, value in pairs if value is not None]


def _path(corners: Iterable[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{x:g} {y:g}" for x, y in corners)


def _accuracy_frame(end: float, curves: tuple[Curve, ...]) -> Frame:
    """Start the accuracy axis at a round tenth below the lowest point, end it at 100 %."""
    values = [value for curve in curves for _, value in _known(curve)]
    low = min(int(10 * min(values, default=0.0)) / 10, 0.9)
    return Frame(end=end, low=low, high=1.0, top=ACCURACY[0], height=ACCURACY[1])


def _accuracy_ticks(frame: Frame) -> list[Tick]:
    values = (frame.low, (frame.low + frame.high) / 2, frame.high)
    return [Tick(place=frame.y(value), label=_text.percent(value, 0)) for value in values]


def _time_ticks(frame: Frame) -> list[Tick]:
    # A long axis is labelled in whole epochs or steps, a short one at its exact quarters.
    digits = 0 if frame.end >= WHOLE_TIMES else 2
    times = [round(frame.end * part / 4, digits) for part in range(5)]
    return [Tick(place=frame.x(time), label=f"{time:,.{digits}f}") for time in times]


def _headline(run: History, dense: History | None) -> list[tuple[str, str]]:
    """Make the figures of the upper edge: a number and what it is."""
    figures = []
    if run.test_accuracy is not None:
        what = "accuracy on test"
        if dense is not None and dense.test_accuracy is not None:
            what += f" (dense {_text.percent(dense.test_accuracy)})"
        figures.append((_text.percent(run.test_accuracy), what))
    if run.macs_before and run.macs_after is not None:
        figures.append((_text.percent(run.macs_after / run.macs_before, 0), "of the MACs"))
    if run.params_before and run.params_after is not None:
        share = run.params_after / run.params_before
        figures.append((_text.percent(share, 0), "of the parameters"))
    if dense is not None and dense.total_seconds and run.total_seconds:
        share = run.total_seconds / dense.total_seconds
        figures.append((_text.percent(share, 0), "of the training time"))
    return figures


def _bars(families: tuple[FamilyHistory, ...]) -> list[Bar]:
    pitch = min(24.0, BARS_HEIGHT / max(len(families), 1))
    scale = scales(families) if families else ()
    is_named = len(families) <= MOST_NAMED
    # Where there are no names and numbers, the bars take their room.
    left, width = (BARS_LEFT, BARS_WIDTH) if is_named else (BARS_EDGE, BARS_WHOLE)
    return [
        Bar(
            left=left,
            top=round(BARS_TOP + pitch * place, 1),
            height=round(0.68 * pitch, 1),
            before=round(width * unit * family.units_before, 1),
            after=round(width * unit * family.units_after, 1),
            name=_text.short(family.name, 19) if is_named else "",
            label=f"{family.units_after:,} of {family.units_before:,}" if is_named else "",
        )
        for place, (unit, family) in enumerate(zip(scale, families, strict=True))
    ]


def _layers(run: History) -> str:
    gone = sum(not layer.is_kept for layer in run.layers)
    return f"{gone} of {_text.plural(len(run.layers), 'layer')} removed" if gone else ""
