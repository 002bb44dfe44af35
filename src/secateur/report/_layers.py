"""The strip of removable layers: what stayed, what went, and when."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from secateur.report import _text
from secateur.report._figure import FOUND, REMOVED, Key, Panel
from secateur.report._history import History, LayerHistory
from secateur.report._parameters import phi

MOST_NAMED = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One layer of the strip.

    Attributes:
        label: What distinguishes it within its stage.
        is_kept: False once it is gone.
        story: What became of it, as a sentence.
    """

    label: str
    is_kept: bool
    story: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Neighbouring layers that live in one module.

    Attributes:
        name: Path of the module; ``""`` for the model itself.
        blocks: In the order of the network.
    """

    name: str
    blocks: tuple[Block, ...]


def layers(run: History, dense: History | None) -> Panel:
    """Say which layers went and draw how their keep parameters moved.

    Args:
        run: The run.
        dense: Not used.

    Returns:
        The section of the page, to which the strip belongs.
    """
    del dense
    title = "Layers"
    if not run.layers:
        reason = "This network has no layer that could be removed as a whole."
        if not run.families:
            reason = "This run trained a network as it is: no layer was up for removal."
        return Panel(name="layers", title=title, text=reason)
    gone = sum(not layer.is_kept for layer in run.layers)
    whole = _text.plural(len(run.layers), "removable layer")
    text = f"{gone} of {whole} went{_when(run)}." if gone else f"All {whole} stayed."
    figure = phi(run)
    if figure is None:
        text += " The run recorded no phi, so there are no trajectories to show."
    return Panel(
        name="layers",
        title=title,
        text=text,
        figures=(figure,) if figure else (),
        keys=(
            Key(label="kept", colour=FOUND, mark="block"),
            Key(label="removed", colour=REMOVED, mark="frame"),
        ),
    )


def strip(run: History) -> tuple[Stage, ...]:
    """Group the layers by the module in which they live.

    Args:
        run: The run.

    Returns:
        The stages in the order of the network.
    """
    pairs = [(*_split(layer.name), layer) for layer in run.layers]
    return tuple(
        Stage(
            name=stage,
            blocks=tuple(
                Block(label=label, is_kept=layer.is_kept, story=_story(layer, run.clock))
                for _, label, layer in members
            ),
        )
        for stage, members in groupby(pairs, key=lambda pair: pair[0])
    )


def _when(run: History) -> str:
    """Say when the layers went, where these are few; tooltips cannot be read on a phone."""
    dated = [layer for layer in run.layers if layer.removed_at is not None]
    if not 1 <= len(dated) <= MOST_NAMED:
        return ""
    dated.sort(key=lambda layer: layer.removed_at or 0.0)
    parts = [f"{layer.name} at {run.clock} {layer.removed_at:.3g}" for layer in dated]
    return f": {_text.joined(parts)}"


def _split(name: str) -> tuple[str, str]:
    stage, _, label = name.rpartition(".")
    return stage, _text.short(label or name, 14)


def _story(layer: LayerHistory, clock: str) -> str:
    if layer.is_kept:
        return f"{layer.name}: kept"
    when = f" at {clock} {layer.removed_at:.4g}" if layer.removed_at is not None else ""
    worth = f", worth {_text.number(layer.worth)} of its price" if layer.worth is not None else ""
    return f"{layer.name}: removed{when}{worth}"
