"""Floor 3: which structures should go, and when."""

from secateur.methods._complexity_aware import ComplexityAware
from secateur.methods._complexity_search import ComplexitySearch
from secateur.methods._estimators import Estimator
from secateur.methods._protocol import Draw, Method, Search, State

__all__ = [
    "ComplexityAware",
    "ComplexitySearch",
    "Draw",
    "Estimator",
    "Method",
    "Search",
    "State",
]
