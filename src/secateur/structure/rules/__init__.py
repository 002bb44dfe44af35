"""What every kind of ATen operation does to labels, one file a kind."""

from secateur.structure.rules import (
    _attention,
    _contraction,
    _convolution,
    _indexing,
    _joining,
    _layout,
    _norm,
    _pooling,
    _reduction,
)
from secateur.structure.rules._pointwise import pointwise
from secateur.structure.rules._registry import RULES, Call, Rule, attach_info, info_of

__all__ = ["RULES", "Call", "Rule", "attach_info", "info_of", "pointwise"]
