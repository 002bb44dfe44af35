"""Iterative pruning: levels of masking, rewinding and training in the user's own loop."""

from secateur.training.iteration._iterate import iterate
from secateur.training.iteration._records import Chunk, IterationReport, Level
from secateur.training.iteration._rewind import (
    FineTune,
    Reinitialise,
    Rewind,
    RewindAll,
    RewindLearningRate,
)
from secateur.training.iteration._snapshot import Stateful, Trained

__all__ = [
    "Chunk",
    "FineTune",
    "IterationReport",
    "Level",
    "Reinitialise",
    "Rewind",
    "RewindAll",
    "RewindLearningRate",
    "Stateful",
    "Trained",
    "iterate",
]
