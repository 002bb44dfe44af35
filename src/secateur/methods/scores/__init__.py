"""Scores: how important every unit, or every single weight, of a model is."""

from secateur.methods.scores._bn_scale import BNScale
from secateur.methods.scores._live_units import live_units
from secateur.methods.scores._magnitude import Magnitude
from secateur.methods.scores._oracle import Oracle
from secateur.methods.scores._protocol import Loss, Score, Subject, WeightScore
from secateur.methods.scores._random import Random
from secateur.methods.scores._registry import (
    SCORES,
    WEIGHT_SCORES,
    score_named,
    weight_score_named,
)
from secateur.methods.scores._snip import SNIP
from secateur.methods.scores._synflow import SynFlow
from secateur.methods.scores._taylor import Taylor, TaylorWeights
from secateur.methods.scores._taylor_second_order import TaylorSecondOrder

__all__ = [
    "SCORES",
    "SNIP",
    "WEIGHT_SCORES",
    "BNScale",
    "Loss",
    "Magnitude",
    "Oracle",
    "Random",
    "Score",
    "Subject",
    "SynFlow",
    "Taylor",
    "TaylorSecondOrder",
    "TaylorWeights",
    "WeightScore",
    "live_units",
    "score_named",
    "weight_score_named",
]
