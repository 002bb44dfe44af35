"""Lets a forward ask for autocast on the device of its tensors, which is no real one in a trace."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

import torch


@contextlib.contextmanager
def autocast_on_meta() -> Generator[None]:
    """Take ``torch.autocast("meta")``, which PyTorch refuses, for autocast on the CPU inside.

    It changes nothing of what runs on meta tensors.
    """
    own = torch.autocast.__init__

    def made(self: torch.autocast, device_type: str, *args: Any, **kwargs: Any) -> None:
        own(self, "cpu" if device_type == "meta" else device_type, *args, **kwargs)

    setattr(torch.autocast, "__init__", made)  # noqa: B010
    try:
        yield
    finally:
        setattr(torch.autocast, "__init__", own)  # noqa: B010
