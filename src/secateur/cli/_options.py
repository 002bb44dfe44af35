"""Options that several commands share, and the status with which a stopped one ends."""

from __future__ import annotations

from typing import Annotated

import typer

INTERRUPTED = 130

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.NAME=VALUE",
        help="Change a setting of the config, such as training.epochs=10. Can be repeated.",
    ),
]
