"""Hooks on all modules for the length of a block: on calls of them, and on reads from them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator
from typing import Any

from torch import nn
from torch.nn.modules import module as torch_module
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

Enter = Callable[[nn.Module, tuple[Any, ...]], None]
Leave = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]


@contextlib.contextmanager
def watched_calls(leave: Leave, enter: Enter | None = None) -> Generator[None]:
    """Call functions around every module that is called inside.

    Args:
        leave: Given the module, its positional and keyword arguments, and what it returned.
        enter: Given the module and its positional arguments.
    """
    after = register_module_forward_hook(leave, with_kwargs=True)
    before = register_module_forward_pre_hook(enter) if enter is not None else None
    try:
        yield
    finally:
        if before is not None:
            before.remove()
        after.remove()
        # PyTorch's own removal forgets this entry, and torch.compile then warns of hooks.
        torch_module._global_forward_hooks_with_kwargs.pop(after.id, None)


@contextlib.contextmanager
def watched_reads(read: Callable[[nn.Module, str], None]) -> Generator[None]:
    """Call a function whenever a parameter, a buffer or a module is read from a module inside.

    Args:
        read: Given the module and the source file of the code that reads.
    """
    own = nn.Module.__getattr__

    def watched(module: nn.Module, name: str) -> Any:
        found = own(module, name)  # what is asked for and is not there is not read
        read(module, sys._getframe(1).f_code.co_filename)
        return found

    setattr(nn.Module, "__getattr__", watched)  # noqa: B010
    try:
        yield
    finally:
        setattr(nn.Module, "__getattr__", own)  # noqa: B010
