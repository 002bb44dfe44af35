"""Stoppers: when a level of iterative pruning has trained long enough."""

from secateur.methods.stoppers._combine import AllOf, AnyOf
from secateur.methods.stoppers._fixed import FixedChunks, RandomStop
from secateur.methods.stoppers._flow import FlowConsistency
from secateur.methods.stoppers._stopper import Stopper
from secateur.methods.stoppers._validation import AccuracyReached, LossPlateau

__all__ = [
    "AccuracyReached",
    "AllOf",
    "AnyOf",
    "FixedChunks",
    "FlowConsistency",
    "LossPlateau",
    "RandomStop",
    "Stopper",
]
