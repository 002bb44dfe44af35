"""Floor 1: what a model is made of and what it costs."""

from secateur.structure._collector import without_collector
from secateur.structure._cost import Cost, Factor, Polynomial, Term
from secateur.structure._explain import Axis, Explanation, Holding
from secateur.structure._inventory import named_modules, named_tensors
from secateur.structure._memory import watched_memory
from secateur.structure._mode import watched_mode
from secateur.structure._nested import map_tensors, tensors_in
from secateur.structure._proof import prove
from secateur.structure._sizes import AttributeValue, Resize, own_tensors, resized_attributes
from secateur.structure._slots import OF_EVERY_MODULE, holder_of, read_slot, write_slot
from secateur.structure._structure import (
    Decision,
    Family,
    Fixed,
    Layer,
    Live,
    Member,
    Reason,
    StoredSize,
    Structure,
    Stub,
    TensorInfo,
)
from secateur.structure._stubs import RELU
from secateur.structure._trace import trace
from secateur.structure._watch import watched_calls

__all__ = [
    "OF_EVERY_MODULE",
    "RELU",
    "AttributeValue",
    "Axis",
    "Cost",
    "Decision",
    "Explanation",
    "Factor",
    "Family",
    "Fixed",
    "Holding",
    "Layer",
    "Live",
    "Member",
    "Polynomial",
    "Reason",
    "Resize",
    "StoredSize",
    "Structure",
    "Stub",
    "TensorInfo",
    "Term",
    "holder_of",
    "map_tensors",
    "named_modules",
    "named_tensors",
    "own_tensors",
    "prove",
    "read_slot",
    "resized_attributes",
    "tensors_in",
    "trace",
    "watched_calls",
    "watched_memory",
    "watched_mode",
    "without_collector",
    "write_slot",
]
