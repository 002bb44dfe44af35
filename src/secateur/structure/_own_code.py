"""Which source files are PyTorch's and ours, and which are the model's own."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import torch

_PACKAGE = Path(__file__).parents[1]
_OWN_CODE = tuple(
    f"{folder}{os.sep}"
    for folder in (
        Path(torch.__file__).parent,
        Path(np.__file__).parent,
        *(_PACKAGE / floor for floor in ("nn", "structure", "surgery", "training")),
    )
)


@functools.cache
def is_own_code(file: str) -> bool:
    """Tell whether a source file belongs to PyTorch or to this package."""
    return file.startswith(_OWN_CODE)
