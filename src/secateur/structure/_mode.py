"""Notices a forward that goes another way in training mode than in evaluation mode.

Most code hands `self.training` on to a function such as dropout, which changes no wiring. Code that
branches on it may do anything: update a second encoder from the first, or return other outputs.
"""

from __future__ import annotations

import contextlib
import dis
import functools
import sys
from collections.abc import Generator, Sequence
from types import CodeType
from typing import Any

from torch import nn

from secateur.structure._own_code import is_own_code

_DECIDES = ("POP_JUMP", "JUMP_IF", "UNARY_NOT")
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
    following = [step for step in dis.get_instructions(code) if step.offset > position]
    while following and following[0].opname in ("CACHE", "TO_BOOL"):
        del following[0]
    if not following or not following[0].opname.startswith(_DECIDES):
        return False
    return not _chooses_number(following)


def _chooses_number(steps: Sequence[dis.Instruction]) -> bool:
    """Recognise `p if self.training else 0.0`, as the probability of a dropout is mostly given.

    Args:
        steps: Instructions from the jump on.

    Returns:
        Whether both ways do nothing but load a value, and one of these is written as a number.
    """
    jump, *rest = steps
    first = [step for step in rest if step.offset < jump.argval]
    if not first or first[-1].opname != "JUMP_FORWARD":
        return False
    second = [step for step in rest if jump.argval <= step.offset < first[-1].argval]
    ways = (first[:-1], second)
    is_number = (len(way) == 1 and isinstance(way[0].argval, (int, float)) for way in ways)
    only_loads = all(step.opname.startswith("LOAD_") for way in ways for step in way)
    return only_loads and any(is_number)
