"""The compact notation of kept positions in a file, such as ``0-3,7,9-12``."""

from __future__ import annotations

import re
from collections.abc import Sequence

Runs = tuple[tuple[int, int], ...]

_PART = re.compile(r"(0|[1-9][0-9]{0,11})(?:-([1-9][0-9]{0,11}))?", re.ASCII)


def write_runs(positions: Sequence[int]) -> str:
    """Return ascending positions as text, runs of neighbours drawn together.

    Args:
        positions: Positions along an axis, ascending.

    Returns:
        Numbers and closed ranges, separated by commas.
    """
    runs: list[list[int]] = []
    for position in positions:
        if runs and position == runs[-1][1] + 1:
            runs[-1][1] = position
        else:
            runs.append([position, position])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)


def read_runs(text: str) -> Runs:
    """Parse the notation without expanding it, so that a hostile range costs nothing.

    Args:
        text: What `write_runs` returned.

    Returns:
        Pairs of the first and the last position of every run.

    Raises:
        ValueError: If the text is malformed, or the positions do not ascend.
    """
    runs: list[tuple[int, int]] = []
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if match is None:
            raise ValueError(f"{part[:40]!r} is neither a position nor a range of positions")
        first = int(match[1])
        last = first if match[2] is None else int(match[2])
        if last < first or (runs and first <= runs[-1][1]):
            raise ValueError(f"positions must ascend, and {part!r} does not")
        runs.append((first, last))
    return tuple(runs)


def count_positions(runs: Runs) -> int:
    """Return how many positions the runs hold."""
    return sum(last - first + 1 for first, last in runs)


def expand_runs(runs: Runs) -> tuple[int, ...]:
    """Return every position of the runs."""
    return tuple(position for first, last in runs for position in range(first, last + 1))
