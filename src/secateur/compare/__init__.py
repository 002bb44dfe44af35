"""Floor 4: several methods on one model, data set and budget, with everything they cost."""

from secateur.compare._compare import OnProgress, Progress, compare
from secateur.compare._comparison import Comparison, Row
from secateur.compare._config import CompareConfig, read_compare_config
from secateur.compare._pareto import pareto_front
from secateur.compare._result import Result

__all__ = [
    "CompareConfig",
    "Comparison",
    "OnProgress",
    "Progress",
    "Result",
    "Row",
    "compare",
    "pareto_front",
    "read_compare_config",
]
