"""Pausing Python's cyclic garbage collector."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Generator


@contextlib.contextmanager
def without_collector() -> Generator[None]:
    """Pause the collector, and leave it as it was found.

    Tracing and cutting make many small objects and hardly any garbage, but their number sets off
    full collections of everything the process holds: half of the time of tracing DenseNet-121.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
