"""The plot of the measured latency before and after."""

from __future__ import annotations

from secateur.report import _text
from secateur.report._figure import EMPTY, FOUND, Figure, Key, Panel, Spec, axis, layout
from secateur.report._history import History, Latency

BAR_PIXELS = 104


def latency(run: History, dense: History | None) -> Panel:
    """Draw the time of a forward pass before and after, per batch size.

    Args:
        run: The run.
        dense: Not used.

    Returns:
        The section of the page.
    """
    del dense
    title = "Latency"
    if not run.latency:
        reason = "The latency of this network was not measured."
        if not run.is_finished:
            reason = "Latency is measured at the end of a run, which this one has not reached."
        return Panel(name="latency", title=title, text=reason)
    return Panel(
        name="latency",
        title=title,
        text="Measured time of one forward pass; the two bars of a batch size share one scale.",
        figures=(_bars(run.latency),),
        keys=(
            Key(label="after", colour=FOUND, mark="block"),
            Key(label="before", colour=EMPTY, mark="block"),
        ),
    )


def _bars(measured: tuple[Latency, ...]) -> Figure:
    places = list(range(len(measured)))
    shares = [each.after_seconds / each.before_seconds for each in measured]
    before = _bar(
        places,
        [1.0] * len(measured),
        [_text.milliseconds(each.before_seconds) for each in measured],
        EMPTY,
        -0.21,
    )
    after = _bar(
        places,
        shares,
        [
            f"<b>{_text.milliseconds(each.after_seconds)}</b>  "
            f"{_text.times(each.before_seconds, each.after_seconds)}"
            for each in measured
        ],
        FOUND,
        0.21,
    )
    return Figure(
        traces=(before, after),
        layout=layout(
            barmode="overlay",
            hovermode=False,
            xaxis=axis(showgrid=False, showticklabels=False, range=[0, max(1.0, *shares)]),
            yaxis=axis(
                showgrid=False,
                tickmode="array",
                tickvals=places,
                ticktext=[f"batch {each.batch_size}" for each in measured],
                ticklabelstandoff=6,
                range=[len(measured) - 0.5, -0.5],
            ),
            # Room for the text to the right of the longest bar, however narrow the screen.
            margin={"l": 8, "r": 120, "t": 4, "b": 4},
        ),
        height=BAR_PIXELS * len(measured) + 10,
    )


def _bar(
    places: list[int], shares: list[float], labels: list[str], colour: str, shift: float
) -> Spec:
    return {
        "type": "bar",
        "orientation": "h",
        "y": [place + shift for place in places],
        "x": shares,
        "width": 0.36,
        "marker": {"color": colour, "cornerradius": 3},
        "text": labels,
        "textposition": "outside",
        "textangle": 0,
        "cliponaxis": False,
    }
