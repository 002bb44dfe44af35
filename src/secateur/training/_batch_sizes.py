"""How many samples are behind the gradients of a step, over all processes that train together."""

from __future__ import annotations

import torch
from torch import distributed

from secateur.training._processes import communication_device, is_distributed

EVERY = 100
"""Steps from one agreement of the processes to the next: each waits for the device."""


class BatchSizes:
    """Counts samples, and lets processes agree on a figure: decisions depend on it.

    One process has the number of each step. Several have the mean of the steps before their last
    agreement; their batches may differ, the figure may not.
    """

    def __init__(self) -> None:
        self._agreed: int | None = None
        self._samples = 0
        self._steps = 0

    def of_step(self, num_samples: int) -> int:
        """Count a step.

        Args:
            num_samples: Samples of this process.

        Returns:
            Number of samples a step over all processes, at least 1, the same on all of them.
        """
        if not is_distributed():
            return max(1, num_samples)
        self._samples += num_samples
        self._steps += 1
        if self._agreed is None or self._steps == EVERY:
            total = torch.tensor(self._samples, device=communication_device())
            distributed.all_reduce(total)
            self._agreed = max(1, round(int(total) / self._steps))
            self._samples, self._steps = 0, 0
        return self._agreed
