"""Floor 0: modules that may remain in a smaller network."""

from secateur.nn._attention import SlimMultiheadAttention
from secateur.nn._stand_ins import Shortcut, Zero

__all__ = ["Shortcut", "SlimMultiheadAttention", "Zero"]
