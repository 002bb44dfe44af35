"""The plot of how wide each family of units was and is."""

from __future__ import annotations

from secateur.report import _text
from secateur.report._figure import EMPTY, FOUND, Figure, Key, Panel, axis, layout
from secateur.report._history import FamilyHistory, History

BAR_PIXELS = 26
EVEN = 24
"""Families that differ more in width than so many times are each drawn to their own scale."""


def widths(run: History, dense: History | None) -> Panel:
    """Draw a bar per family, in the order of the network: units left within units at the start.

    Args:
        run: The run.
        dense: Not used.

    Returns:
        The section of the page.
    """
    del dense
    title = "Widths"
    if not run.families:
        reason = "This run trained a network as it is: no family of units was up for removal."
        return Panel(name="widths", title=title, text=reason)
    scale = scales(run.families)
    note = (
        "" if len(set(scale)) == 1 else " Each bar has its own scale: its full length is the start."
    )
    before = sum(family.units_before for family in run.families)
    after = sum(family.units_after for family in run.families)
    return Panel(
        name="widths",
        title=title,
        text=f"{after:,} of {_text.plural(before, 'unit')} "
        f"{'are' if run.is_finished else 'were still'} left, in "
        f"{_text.plural(len(run.families), 'family', 'families')}; "
        f"the order is that of the network.{note}",
        figures=(_bars(run.families),),
        keys=(
            Key(label="units left", colour=FOUND, mark="block"),
            Key(label="units at the start", colour=EMPTY, mark="block"),
        ),
    )


def scales(families: tuple[FamilyHistory, ...]) -> tuple[float, ...]:
    """Choose what a unit of each family takes of the longest bar.

    Args:
        families: The families.

    Returns:
        One number per family: all equal, so that widths can be compared, or where the families
        are too different for that, such that every family starts with a bar of length 1.
    """
    widths = [max(family.units_before, 1) for family in families]
    if max(widths) <= EVEN * min(widths):
        return (1 / max(widths),) * len(widths)
    return tuple(1 / width for width in widths)


def _bars(families: tuple[FamilyHistory, ...]) -> Figure:
    places, scale = list(range(len(families))), scales(families)
    names = [_text.plain(_text.short(family.name, 20)) for family in families]
    hover = [
        f"{_text.plain(_text.short(family.name, 60))}<br>{_text.plain(family.kind or 'units')}: "
        f"{family.units_before:,} → {family.units_after:,}"
        for family in families
    ]
    shared = {
        "type": "bar",
        "orientation": "h",
        "y": places,
        "hovertext": hover,
        "hovertemplate": "%{hovertext}<extra></extra>",
        "cliponaxis": False,
    }
    start = shared | {
        "x": [unit * f.units_before for unit, f in zip(scale, families, strict=True)],
        "marker": {"color": EMPTY, "cornerradius": 3},
        "text": [f"{family.units_after:,} of {family.units_before:,}" for family in families],
        "textposition": "outside",
        "textangle": 0,
        "width": 0.66,
    }
    left = shared | {
        "x": [unit * f.units_after for unit, f in zip(scale, families, strict=True)],
        "marker": {"color": FOUND, "cornerradius": 3},
        "width": 0.66,
    }
    largest = max(family.units_before for family in families)
    return Figure(
        traces=(start, left),
        layout=layout(
            barmode="overlay",
            hovermode="closest",
            xaxis=axis(showgrid=False, showticklabels=False, range=[0, 1]),
            yaxis=axis(
                showgrid=False,
                tickmode="array",
                tickvals=places,
                ticktext=names,
                ticklabelstandoff=6,
                range=[len(families) - 0.4, -0.6],
            ),
            # Room for the text to the right of the longest bar, however narrow the screen.
            margin={"l": 8, "r": 26 + 8 * len(f"{largest:,} of {largest:,}"), "t": 6, "b": 6},
        ),
        height=BAR_PIXELS * len(families) + 16,
    )
