"""What every kind of ATen operation does to labels, one file a kind."""

from secateur.structure.rules._attention import attention, keep_scale
from secateur.structure.rules._choosing import choose
from secateur.structure.rules._complex import fourier
from secateur.structure.rules._contraction import product
from secateur.structure.rules._convolution import convolution
from secateur.structure.rules._einsum import is_plain_sum
from secateur.structure.rules._indexing import index
from secateur.structure.rules._joining import concatenate
from secateur.structure.rules._layout import view
from secateur.structure.rules._norm import layer_norm
from secateur.structure.rules._packing import pack
from secateur.structure.rules._pointwise import pointwise
from secateur.structure.rules._pooling import spatial
from secateur.structure.rules._recurrent import recurrent_layers
from secateur.structure.rules._reduction import reduction
from secateur.structure.rules._references import fix_references, follow_references, refer
from secateur.structure.rules._registry import RULES, Call, Rule, attach_info, info_of
from secateur.structure.rules._routing import grouped_product
from secateur.structure.rules._selecting import select
from secateur.structure.rules._shuffling import shuffle
from secateur.structure.rules._slicing import slice_axis
from secateur.structure.rules._squeezing import squeeze
from secateur.structure.rules._weights import weight_norm

__all__ = [
    "RULES",
    "Call",
    "Rule",
    "attach_info",
    "attention",
    "choose",
    "concatenate",
    "convolution",
    "fix_references",
    "follow_references",
    "fourier",
    "grouped_product",
    "index",
    "info_of",
    "is_plain_sum",
    "keep_scale",
    "layer_norm",
    "pack",
    "pointwise",
    "product",
    "recurrent_layers",
    "reduction",
    "refer",
    "select",
    "shuffle",
    "slice_axis",
    "spatial",
    "squeeze",
    "view",
    "weight_norm",
]
