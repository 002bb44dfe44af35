"""Python's and NumPy's generators, seeded for the length of a block and then as they were.

A forward may draw from them which layers run. Every trace of a model should draw the same, and what
the user draws next should not depend on a trace.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Generator

import numpy as np


@contextlib.contextmanager
def seeded() -> Generator[None]:
    """Seed both generators, and give them their states back."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 (what forwards draw from)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
