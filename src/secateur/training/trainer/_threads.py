"""The number of CPU threads that torch uses, set for the time of a run."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch


@contextmanager
def own_threads(count: int | None) -> Generator[None]:
    """Give a block its own number of threads; the caller's number comes back after it.

    Args:
        count: Number of threads; None leaves it as it is.

    Yields:
        Nothing.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
