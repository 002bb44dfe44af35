"""Writes the report of a run: one self-contained HTML page beside its events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from secateur.errors import StorageError
from secateur.report import _text
from secateur.report._cards import cards, summary
from secateur.report._events import read_events
from secateur.report._figure import Panel
from secateur.report._history import History, Removal
from secateur.report._latency import latency
from secateur.report._layers import layers, strip
from secateur.report._over_time import accuracy_and_macs, price
from secateur.report._parameters import theta
from secateur.report._read_history import history_of
from secateur.report._templates import render_page
from secateur.report._training_cost import training_cost
from secateur.report._widths import widths
from secateur.report._worth import worth
from secateur.report._write import write_beside

REPORT_FILE = "report.html"
CONFIG_FILE = "config.toml"

SECTIONS: tuple[Callable[[History, History | None], Panel | None], ...] = (
    accuracy_and_macs,
    price,
    widths,
    layers,
    worth,
    latency,
    training_cost,
    theta,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A removal as a line of the table."""

    when: str
    what: str
    worth: str
    price: str
    macs: str
    params: str
    difference: str


def write_report(run: Path, *, baseline: Path | None = None) -> Path:
    """Write ``report.html`` into a run folder.

    The page needs no network and no file beside it. What the run did not record (a killed run has
    no latency, for one) is said in a sentence where the plot would stand.

    Args:
        run: Folder of the run; its ``events.jsonl`` is read, and its ``config.toml`` if there.
        baseline: Folder of a dense run of the same job, to compare with.

    Returns:
        The path of the page.

    Raises:
        StorageError: Events are missing or damaged, or the page cannot be written.
    """
    run = Path(run)
    found = history_of(read_events(run))
    dense = history_of(read_events(Path(baseline))) if baseline is not None else None
    page = render(found, dense, name=run.resolve().name, config=_config(run))
    return write_beside(run / REPORT_FILE, page)


def render(run: History, dense: History | None, *, name: str, config: str) -> str:
    """Render the page.

    Args:
        run: The run.
        dense: The dense run beside it.
        name: Name of the run.
        config: Its config as text; ``""`` for none.

    Returns:
        The whole page.
    """
    panels = [panel for make in SECTIONS if (panel := make(run, dense)) is not None]
    return render_page(
        "page.html",
        name=name,
        heading=_heading(run, name),
        facts=_facts(run),
        summary=summary(run, dense),
        notes=_notes(run, dense),
        cards=cards(run, dense),
        panels=panels,
        strip=strip(run),
        rows=[_row(removal, run) for removal in run.removals],
        has_difference=any(removal.max_difference is not None for removal in run.removals),
        clock=run.clock,
        tables=_tables(run),
        config=config,
    )


def _config(run: Path) -> str:
    try:
        return (run / CONFIG_FILE).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise StorageError(
            f"{run / CONFIG_FILE} cannot be read ({error.strerror or error}). It should be the "
            "text file with the settings of the run; restore it, or delete it."
        ) from error


def _heading(run: History, name: str) -> str:
    return _text.subject(run.model, run.data) or name


def _facts(run: History) -> list[str]:
    facts = [run.method] if run.method else []
    price = run.setting("price")
    if price is not None:
        facts.append(f"price {_text.number(price)}")
    if run.clock == "epoch":
        facts.append(_text.plural(len(run.validation_accuracy.times), "epoch"))
    facts.append(_text.plural(run.last_step, "step"))
    if run.seed is not None:
        facts.append(f"seed {run.seed}")
    return facts


def _notes(run: History, dense: History | None) -> list[str]:
    notes = list(run.notices)
    if not run.is_finished:
        planned = f" of {run.total_steps:,}" if run.total_steps else ""
        notes.append(
            f"This run has no end yet: it was interrupted, or is still going. "
            f"What follows is its state at step {run.last_step:,}{planned}."
        )
    if run.is_torn:
        notes.append(
            "The last line of its events is cut off, as a killed process leaves it; "
            "that line was left out."
        )
    if run.unknown:
        kinds = _text.joined(list(run.unknown))
        notes.append(f"Events of a kind this version does not know were left out: {kinds}.")
    if dense is not None and (dense.model, dense.data) != (run.model, run.data):
        other = _text.subject(dense.model, dense.data) or "something else"
        notes.append(f"Mind that the dense run trained {other}.")
    if dense is not None and not dense.is_finished:
        notes.append("The dense run has no end, so its last figures are missing.")
    return notes


def _row(removal: Removal, run: History) -> Row:
    parts = [f"{name}{_text.NBSP}(layer)" for name in removal.layers]
    parts += [f"{name}{_text.NBSP}{_text.MINUS}{units:,}" for name, units in removal.units.items()]
    worth = sorted(removal.worth.values())
    ends = dict.fromkeys(_text.number(value, 2) for value in (worth[:1] + worth[-1:]))
    whole, params = run.macs_before, run.params_before
    return Row(
        when=_text.number(removal.time) if run.clock == "epoch" else f"{removal.step:,}",
        what=", ".join(parts) or "nothing",
        worth=" to ".join(ends) or _text.UNKNOWN,
        price=_text.number(removal.price),
        macs=_text.percent(removal.macs / whole if whole and removal.macs is not None else None),
        params=_text.percent(
            removal.params / params if params and removal.params is not None else None
        ),
        difference=_text.number(removal.max_difference, 2),
    )


def _tables(run: History) -> dict[str, dict[str, str]]:
    tables = {
        "Settings of the method": _flat(run.settings),
        "Measured scale of the units' worth": {
            name: _text.number(factor) for name, factor in run.calibration.items()
        },
        "Machine": _flat(run.machine),
        "Versions": _flat(run.versions),
    }
    return {title: table for title, table in tables.items() if table}


def _flat(settings: Mapping[str, JsonValue]) -> dict[str, str]:
    return {
        name: _text.UNKNOWN if value is None else str(value) for name, value in settings.items()
    }
