"""Floor 4: how a run proceeds, in the user's own loop or in the built-in trainer."""

from secateur.training._attach import attach
from secateur.training._session import Session
from secateur.training._session_report import FamilyWidth, SessionReport
from secateur.training.iteration import iterate

__all__ = ["FamilyWidth", "Session", "SessionReport", "attach", "iterate"]
