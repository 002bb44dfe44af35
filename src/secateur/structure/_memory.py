"""Objects in which a model keeps tensors for its next call, such as a cache of keys and values.

They are no results: their tensors may shrink along. Nothing says what such an object is, so it has
to behave like one: modules take it as an argument, return tensors that are something else, and the
model returns it beside its results.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

from torch import Tensor, nn

from secateur.structure._nested import tensors_in
from secateur.structure._watch import watched_calls

_VALUES = (Tensor, nn.Module, str, bytes, int, float, complex, tuple, list, dict, set, type(None))


class Memory:
    """Watches what modules are given and return during one forward."""

    def __init__(self) -> None:
        self._given: dict[int, Any] = {}
        self._returned: dict[int, Any] = {}

    def note(self, arguments: tuple[Any, ...], options: dict[str, Any], output: Any) -> None:
        """Look at one call of a module.

        Args:
            arguments: Its positional arguments.
            options: Its keyword arguments.
            output: What it returned.
        """
        found = [x for x in (*arguments, *options.values()) if not isinstance(x, _VALUES)]
        if not found:
            return
        entries = output if isinstance(output, (tuple, list)) else (output,)
        silent = not tensors_in(output)
        for value in found:
            self._given[id(value)] = value
            if silent or any(entry is value for entry in entries):
                self._returned[id(value)] = value

    def results(self, output: Any) -> list[Tensor]:
        """List the tensors of a model's output that are no memory; all where that leaves none.

        Args:
            output: What the model returned.

        Returns:
            The tensors in order.
        """
        return tensors_in(output, skip=self._objects(output)) or tensors_in(output)

    def kept(self, output: Any) -> list[Tensor]:
        """List the tensors of a model's output that are memory.

        Args:
            output: What the model returned.

        Returns:
            The tensors in order.
        """
        results = {id(tensor) for tensor in self.results(output)}
        return [tensor for tensor in tensors_in(output) if id(tensor) not in results]

    def _objects(self, output: Any) -> set[int]:
        entries = output if isinstance(output, (tuple, list)) else (output,)
        shown = {id(entry) for entry in entries}
        return self._given.keys() - self._returned.keys() - shown


@contextlib.contextmanager
def watched_memory() -> Generator[Memory]:
    """Watch all modules that are called inside.

    Yields:
        What they keep.
    """
    memory = Memory()

    def leave(module: nn.Module, inputs: Any, options: dict[str, Any], output: Any) -> None:
        memory.note(inputs, options, output)

    with watched_calls(leave):
        yield memory
