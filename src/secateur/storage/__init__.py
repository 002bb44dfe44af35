"""Floor 2: models as files that are safe to open, and exports of them."""

from secateur.storage._export import export
from secateur.storage._load import load
from secateur.storage._save import save

__all__ = ["export", "load", "save"]
