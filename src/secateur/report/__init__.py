"""Shows what a run did: a self-contained page, and a picture."""

from secateur.report._page import write_report
from secateur.report._picture import write_picture

__all__ = ["write_picture", "write_report"]
