"""Floor 4: several methods on one model, data set and budget, with everything they cost."""

from secateur.compare._compare import OnProgress, Progress, compare
from secateur.compare._comparison import Comparison, Row
from secateur.compare._config import CompareConfig, read_compare_config
from secateur.compare._pareto import front_of, pareto_front
from secateur.compare._result import Result

__all__ = [
    "CompareConfig",
    "Comparison",
    "OnProgress",
    "Progress",
    "Result",
    "Row",
    "compare",
    "front_of",
    "pareto_front",
    "read_compare_config",
]
