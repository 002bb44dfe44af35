"""Floor 3: which structures should go, and when."""

from secateur.methods._aofp import AOFP
from secateur.methods._aofp_search import AOFPSearch
from secateur.methods._checks import check_removable
from secateur.methods._complexity_aware import ComplexityAware
from secateur.methods._complexity_search import ComplexitySearch
from secateur.methods._estimators import Estimator
from secateur.methods._evaluating import buffers_kept
from secateur.methods._protocol import Ablating, Compacting, Draw, Method, Search, State
from secateur.methods._prune import prune
from secateur.methods._pruned import Pruned, Round
from secateur.methods._resrep import ResRep
from secateur.methods._resrep_search import ResRepSearch

__all__ = [
    "AOFP",
    "AOFPSearch",
    "Ablating",
    "Compacting",
    "ComplexityAware",
    "ComplexitySearch",
    "Draw",
    "Estimator",
    "Method",
    "Pruned",
    "ResRep",
    "ResRepSearch",
    "Round",
    "Search",
    "State",
    "buffers_kept",
    "check_removable",
    "prune",
]
