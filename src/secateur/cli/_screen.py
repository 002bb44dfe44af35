"""Where the commands write: results to standard output, everything else beside it."""

from __future__ import annotations

from rich.console import Console


def screen() -> Console:
    """Return the console for results."""
    return Console()


def error_screen() -> Console:
    """Return the console for progress and errors."""
    return Console(stderr=True)
