"""The report's templates, with everything that goes into them escaped."""

from __future__ import annotations

import jinja2


def templates() -> jinja2.Environment:
    """Open the report's templates; all text that goes into them is escaped.

    Returns:
        The templates.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("secateur.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # A value that is not finite would make the page's JSON unreadable in a browser.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return environment
