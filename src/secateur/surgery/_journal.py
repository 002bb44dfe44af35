"""A list of what to do backwards when surgery has to be called off."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

Undo = Callable[[], object]


class Journal:
    """Undoes what was noted, last first, when its block is left by an exception.

    Example:
        >>> values = [1]
        >>> try:
        ...     with Journal() as journal:
        ...         journal.note(values.pop)
        ...         values.append(2)
        ...         raise KeyboardInterrupt
        ... except KeyboardInterrupt:
        ...     values
        [1]
    """

    def __init__(self) -> None:
        self._undo: list[Undo] = []

    def note(self, undo: Undo) -> None:
        """Remember how to undo the change that is about to be made.

        Args:
            undo: Called without arguments, once at most.
        """
        self._undo.append(undo)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            for undo in reversed(self._undo):
                undo()
        self._undo.clear()
