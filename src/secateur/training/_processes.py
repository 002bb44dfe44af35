"""Whether other processes train along, and through which device they talk."""

from __future__ import annotations

import torch
from torch import distributed


def is_distributed() -> bool:
    """Say whether a process group is at work."""
    return distributed.is_available() and distributed.is_initialized()


def communication_device() -> torch.device:
    """Return the device on which tensors can be sent to other processes."""
    if distributed.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")
