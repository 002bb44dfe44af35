"""Scores: how important every unit, or every single weight, of a model is."""

from secateur.methods.scores._protocol import Loss, Score, Subject, WeightScore
from secateur.methods.scores._random import Random
from secateur.methods.scores._registry import (
    SCORES,
    WEIGHT_SCORES,
    score_named,
    weight_score_named,
)

__all__ = [
    "SCORES",
    "WEIGHT_SCORES",
    "Loss",
    "Random",
    "Score",
    "Subject",
    "WeightScore",
    "score_named",
    "weight_score_named",
]
