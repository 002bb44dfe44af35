"""Floor 2: structures are hidden for a step, or for a look at what hiding them would do."""

from secateur.gates._ablation import Ablation, Damage
from secateur.gates._compactors import Compactors, compactable
from secateur.gates._damage import DamageMeter
from secateur.gates._gates import Gates
from secateur.gates._pairing import pairing

__all__ = ["Ablation", "Compactors", "Damage", "DamageMeter", "Gates", "compactable", "pairing"]
