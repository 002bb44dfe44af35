"""How long a trace may take, in seconds and operations; beyond, it ends with a readable message."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from secateur.errors import TraceError, UsageError
from secateur.structure._structure import Reason


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one trace may take, from now on.

    Attributes:
        max_seconds: Seconds of wall time.
        max_operations: Operations of one forward.
        start: When the trace began, on the monotonic clock.
    """

    max_seconds: float
    max_operations: float
    start: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        if not (self.max_seconds > 0 and self.max_operations > 0):
            raise UsageError(
                f"trace got max_seconds={self.max_seconds} and max_operations="
                f"{self.max_operations}, expected numbers above zero. Leave them out for 60 "
                "seconds and 200,000 operations, or pass math.inf for no limit."
            )

    def check(self, num_operations: int, where: Callable[[], Reason]) -> None:
        """Go on, or say what took so long.

        Args:
            num_operations: Operations of this forward so far.
            where: Describes the one that runs.

        Raises:
            TraceError: The allowance is used up.
        """
        seconds = time.monotonic() - self.start
        if seconds <= self.max_seconds and num_operations <= self.max_operations:
            return
        limit = (
            f"max_seconds={self.max_seconds:g}"
            if seconds > self.max_seconds
            else f"max_operations={self.max_operations:g}"
        )
        raise TraceError(
            f"The trace was ended after {seconds:.1f} seconds and {num_operations:,} operations "
            f"of a forward: {where()}. Expected a forward that fits into {limit}. Trace with a "
            "smaller example, such as fewer time steps of a loop over them, or pass a larger limit."
        )
