"""Rules of iterative pruning: which single weights are masked next."""

from secateur.methods.mask_rules._by_score import ByScore
from secateur.methods.mask_rules._magnitude import GlobalMagnitude, Magnitude
from secateur.methods.mask_rules._named import MASK_RULES, mask_rule_named
from secateur.methods.mask_rules._protocol import MaskRule
from secateur.methods.mask_rules._random import RandomWeights
from secateur.methods.mask_rules._sap import SAP, pq_index

__all__ = [
    "MASK_RULES",
    "SAP",
    "ByScore",
    "GlobalMagnitude",
    "Magnitude",
    "MaskRule",
    "RandomWeights",
    "mask_rule_named",
    "pq_index",
]
