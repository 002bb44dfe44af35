"""The plot of how wide each family of units was and is."""

from __future__ import annotations

from secateur.report import _text
from secateur.report._figure import EMPTY, FOUND, Figure, Key, Panel, axis, layout
from secateur.report._history import FamilyHistory, History

BAR_PIXELS = 26


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
    before = sum(family.units_before for family in run.families)
    after = sum(family.units_after for family in run.families)
    return Panel(
        name="widths",
        title=title,
        text=f"{after:,} of {_text.plural(before, 'unit')} "
        f"{'are' if run.is_finished else 'were still'} left, in "
        f"{_text.plural(len(run.families), 'family', 'families')}; "
        "the order is that of the network.",
        figures=(_bars(run.families),),
        keys=(
            Key(label="units left", colour=FOUND, mark="block"),
            Key(label="units at the start", colour=EMPTY, mark="block"),
        ),
    )


def _bars(families: tuple[FamilyHistory, ...]) -> Figure:
    places = list(range(len(families)))
    names = [_text.plain(_text.short(family.name)) for family in families]
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
        "x": [family.units_before for family in families],
        "marker": {"color": EMPTY, "cornerradius": 3},
        "text": [f"{family.units_after:,} of {family.units_before:,}" for family in families],
        "textposition": "outside",
        "textangle": 0,
        "width": 0.66,
    }
    left = shared | {
        "x": [family.units_after for family in families],
        "marker": {"color": FOUND, "cornerradius": 3},
        "width": 0.66,
    }
    largest = max(family.units_before for family in families)
    return Figure(
        traces=(start, left),
        layout=layout(
            barmode="overlay",
            hovermode="closest",
            xaxis=axis(showgrid=False, showticklabels=False, range=[0, max(largest, 1)]),
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
