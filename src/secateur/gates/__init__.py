"""Floor 2: structures are hidden for a step by zeroing slices of weights in place."""

from secateur.gates._gates import Gates

__all__ = ["Gates"]
