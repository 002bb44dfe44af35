"""Floor 5: the commands."""

from secateur.cli._app import app

__all__ = ["app"]
