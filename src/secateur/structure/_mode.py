"""Notices a forward that goes another way in training mode than in evaluation mode.

Most code hands `self.training` on to a function such as dropout, which changes no wiring. Code that
branches on it may do anything: update a second encoder from the first, or return other outputs.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import sys
from collections.abc import Generator
from types import CodeType
from typing import Any

from torch import nn

from secateur.structure._tracer import is_own_code

_DECIDES = ("POP_JUMP", "JUMP_IF", "UNARY_NOT", "TO_BOOL")
"""How instructions start that decide something by the value read just before."""


class ModeReads:
    """Whether code of a model decided something by the mode of a module.

    Attributes:
        has_branch: True once some did.
    """

    def __init__(self) -> None:
        self.has_branch = False

    def note(self) -> None:
        """Look at the code that is reading the mode of a module, two frames up."""
        frame = sys._getframe(2)
        if not self.has_branch and _is_branch(frame.f_code, frame.f_lasti):
            self.has_branch = True


@contextlib.contextmanager
def watched_mode() -> Generator[ModeReads]:
    """Watch what a block does with `self.training`.

    Yields:
        What was seen so far.
    """
    reads = ModeReads()

    def read(module: nn.Module) -> bool:
        reads.note()
        state: dict[str, Any] = vars(module)
        if "training" not in state:
            raise AttributeError("training")  # scripted modules keep it elsewhere
        return bool(state["training"])

    def write(module: nn.Module, mode: bool) -> None:
        vars(module)["training"] = mode

    nn.Module.training = property(read, write)  # type: ignore[assignment]
    try:
        yield reads
    finally:
        del nn.Module.training


@functools.lru_cache(maxsize=4096)
def _is_branch(code: CodeType, position: int) -> bool:
    """Tell whether the instruction after one at a position decides by what that one read."""
    if is_own_code(code.co_filename):
        return False
    following = (step for step in dis.get_instructions(code) if step.offset > position)
    after = next((step.opname for step in following if step.opname != "CACHE"), "")
    return after.startswith(_DECIDES)
