"""The report's templates, with everything that goes into them escaped."""

from __future__ import annotations

from collections.abc import Sequence

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from secateur.report._figure import Panel, figures_of


def render_page(
    template: str,
    *,
    panels: Sequence[Panel],
    package: str = "secateur.report",
    **content: object,
) -> str:
    """Render a self-contained page.

    Args:
        template: Name of a template that extends ``base.html``.
        panels: The sections with plots.
        package: The package whose folder ``templates`` holds it.
        content: What else the template needs.

    Returns:
        The whole page.
    """
    return (
        templates(package)
        .get_template(template)
        .render(
            **content,
            panels=panels,
            figures=figures_of(panels),
            # The library's own file, trusted: it goes in as it is, once.
            plotly=Markup(get_plotlyjs()),  # noqa: S704
        )
    )


def templates(package: str = "secateur.report") -> jinja2.Environment:
    """Open the templates of a package and, behind them, those of the report.

    Args:
        package: The package whose folder ``templates`` holds its own.

    Returns:
        The templates; all text that goes into them is escaped.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package), jinja2.PackageLoader("secateur.report")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # A value that is not finite would make the page's JSON unreadable in a browser.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return environment
