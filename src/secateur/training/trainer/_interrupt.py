"""Ctrl-C as a request that the training loop looks at between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType


class InterruptRequest:
    """Whether the user has asked to stop.

    Attributes:
        is_made: True after the first Ctrl-C.
    """

    def __init__(self) -> None:
        self.is_made = False


@contextmanager
def interruptible() -> Generator[InterruptRequest]:
    """Turn the first Ctrl-C into a request; the second one interrupts at once.

    Yields:
        The request. Outside of the main thread, where signals do not arrive, it is never made.
    """
    request = InterruptRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, frame: FrameType | None) -> None:
        request.is_made = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, before)
