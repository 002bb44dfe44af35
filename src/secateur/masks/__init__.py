"""Floor 2: single weights are held at zero, whatever optimizer trains the rest."""

from secateur.masks._compress import compress, decompress_
from secateur.masks._maskable import maskable
from secateur.masks._masks import Masks
from secateur.masks._sparse import to_sparse

__all__ = ["Masks", "compress", "decompress_", "maskable", "to_sparse"]
