"""Floor 3: which structures should go, and when."""

from secateur.methods._aofp import AOFP
from secateur.methods._aofp_search import AOFPSearch
from secateur.methods._complexity_aware import ComplexityAware
from secateur.methods._complexity_search import ComplexitySearch
from secateur.methods._estimators import Estimator
from secateur.methods._protocol import Ablating, Draw, Method, Search, State
from secateur.methods._prune import prune
from secateur.methods._pruned import Pruned, Round

__all__ = [
    "AOFP",
    "AOFPSearch",
    "Ablating",
    "ComplexityAware",
    "ComplexitySearch",
    "Draw",
    "Estimator",
    "Method",
    "Pruned",
    "Round",
    "Search",
    "State",
    "prune",
]
