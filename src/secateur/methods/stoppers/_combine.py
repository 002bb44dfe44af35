"""Several stoppers as one: any of them ends a level, or all of them together."""

from __future__ import annotations

from typing import Any

from secateur.errors import UsageError
from secateur.methods.stoppers._stopper import Stopper


class _Combined(Stopper):
    """Asks all stoppers at every check, so that each sees every chunk."""

    def __init__(self, *stoppers: Stopper) -> None:
        super().__init__()
        if not stoppers:
            raise UsageError(
                f"{type(self).__name__}() combines nothing. Give it stoppers, such as "
                f"{type(self).__name__}(FlowConsistency(flow), AccuracyReached(evaluate))."
            )
        self._stoppers = stoppers

    def level_begins(self, level: int) -> None:
        """Prepare all for a level; see `Stopper`."""
        for stopper in self._stoppers:
            stopper.level_begins(level)

    def level_ends(self, level: int) -> None:
        """Tell all that a level has been trained; see `Stopper`."""
        for stopper in self._stoppers:
            stopper.level_ends(level)

    def should_stop(self, chunks: int) -> bool:
        """Say whether the level is done; see `Stopper`."""
        votes = [stopper.should_stop(chunks) for stopper in self._stoppers]
        stop = self._settle(votes)
        self.readings = {}
        for stopper in self._stoppers:
            for name, value in stopper.readings.items():
                self.readings[_free(name, self.readings)] = value
        reasons = [stopper.because for stopper in self._stoppers if stopper.because]
        self.because = " and ".join(reasons) if stop else ""
        return stop

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all; see `Stopper`."""
        return {"stoppers": [stopper.state_dict() for stopper in self._stoppers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let all go on; see `Stopper`."""
        for stopper, own in zip(self._stoppers, state["stoppers"], strict=True):
            stopper.load_state_dict(own)

    def _settle(self, votes: list[bool]) -> bool:
        raise NotImplementedError


class AnyOf(_Combined):
    """Ends a level when at least one of several stoppers would.

    Args:
        stoppers: At least one.

    Raises:
        UsageError: There is none.
    """

    def _settle(self, votes: list[bool]) -> bool:
        return any(votes)


class AllOf(_Combined):
    """Ends a level when all of several stoppers would, at the same check.

    Args:
        stoppers: At least one.

    Raises:
        UsageError: There is none.
    """

    def _settle(self, votes: list[bool]) -> bool:
        return all(votes)


def _free(name: str, taken: dict[str, float]) -> str:
    """Number a name that is taken: two flows both have a distance."""
    number, wanted = 1, name
    while name in taken:
        number += 1
        name = f"{wanted} {number}"
    return name
