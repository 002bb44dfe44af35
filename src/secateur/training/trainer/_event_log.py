"""The events of a run: one JSON object a line, appended, and cut back when a run is resumed."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from torch import Tensor

from secateur.errors import StorageError

EVENTS = "events.jsonl"


class EventLog:
    """Appends events to a run's file; every line reaches the file when it is written.

    Args:
        run: The run folder.
        num_bytes: Size of the file to go on from; what lies beyond is cut off.
        seconds: Seconds that the run took before.

    Raises:
        StorageError: The file is shorter than ``num_bytes``, or cannot be written.
    """

    def __init__(self, run: Path, *, num_bytes: int = 0, seconds: float = 0.0) -> None:
        path = run / EVENTS
        found = path.stat().st_size if path.exists() else 0
        if found < num_bytes:
            raise StorageError(
                f"{path} has {found} bytes, but the checkpoint beside it was written when there "
                f"were {num_bytes}. Restore the file from a copy, or start the run again."
            )
        try:
            self._file = path.open("ab")
            self._file.truncate(num_bytes)
        except OSError as error:
            raise StorageError(
                f"{path} cannot be written ({error.strerror or error}). "
                "Check that the folder can be written, or choose another with --out."
            ) from error
        self._started = time.monotonic() - seconds

    @property
    def seconds(self) -> float:
        """Seconds since the run started, pauses aside."""
        return time.monotonic() - self._started

    def write(self, event: Mapping[str, object]) -> None:
        """Append an event.

        Args:
            event: With ``event`` and ``step``; its ``seconds`` are set here.
        """
        plain = {name: _plain(value) for name, value in event.items()}
        line = {"event": plain.pop("event"), "step": plain.pop("step"), "seconds": self.seconds}
        plain.pop("seconds", None)
        self._file.write(json.dumps(line | plain, allow_nan=False).encode() + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """Bring everything to the disk.

        Returns:
            Size of the file in bytes.
        """
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


def _plain(value: object) -> object:
    """Turn a value into what JSON knows; a number that is not finite becomes null."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)
