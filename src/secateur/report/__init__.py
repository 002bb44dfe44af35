"""Shows what a run did: a self-contained page, and a picture."""

from secateur.report._page import write_report

__all__ = ["write_report"]
