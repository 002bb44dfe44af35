"""Floor 2, for good: removal of units and layers, its record, and the check that it is exact."""

from secateur.structure import AttributeValue
from secateur.surgery._copy import copy_of
from secateur.surgery._cut import cut_, edit_of
from secateur.surgery._edit import Edit
from secateur.surgery._grouped import grouped_product
from secateur.surgery._redesign import redesign
from secateur.surgery._rehearse import rehearse
from secateur.surgery._replay import replay_
from secateur.surgery._verification import Verification
from secateur.surgery._verify import verify
from secateur.surgery._widen import widen
from secateur.surgery._wrappers import distributed_in, renew_reducer_, unwrapped

__all__ = [
    "AttributeValue",
    "Edit",
    "Verification",
    "copy_of",
    "cut_",
    "distributed_in",
    "edit_of",
    "grouped_product",
    "redesign",
    "rehearse",
    "renew_reducer_",
    "replay_",
    "unwrapped",
    "verify",
    "widen",
]
