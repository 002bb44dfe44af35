"""Floor 0: modules that remain in a network once parts of it are gone."""

from secateur.nn._attention import SlimMultiheadAttention
from secateur.nn._shortcut import Shortcut
from secateur.nn._zero import Zero

__all__ = ["Shortcut", "SlimMultiheadAttention", "Zero"]
