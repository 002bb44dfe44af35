"""Measured time of a forward pass, two networks in turn so that both meet the same machine.

A quarter of the passes takes no longer than what is told. On a busy machine every pass that ends
after the process's slice of time has waited for others: with slices of 3 ms, medians of one network
and itself once differed by a factor of 6.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BATCH_SIZES = (1, 64)
WARMUP = 3
SMALLEST_COUNT = 5
BUDGET_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Seconds of a forward pass in evaluation mode, the lower quartile of many.

    Attributes:
        before: Of the network as it was built.
        after: Of the network as it is.
    """

    before: float
    after: float


def measure_latency(before: nn.Module, after: nn.Module, image: Tensor) -> Mapping[int, Latency]:
    """Time two networks in evaluation mode, in turn, with as many threads as torch has.

    Args:
        before: One network.
        after: Another one that takes the same images.
        image: One image, ``[1, C, H, W]``, on the device of both; its values do not matter.

    Returns:
        Batch size to lower quartiles, for 1 and 64.
    """
    modes = before.training, after.training
    before.eval()
    after.eval()
    with torch.inference_mode():
        found = {size: _in_turn(before, after, image.repeat(size, 1, 1, 1)) for size in BATCH_SIZES}
    before.train(modes[0])
    after.train(modes[1])
    return found


def _in_turn(before: nn.Module, after: nn.Module, images: Tensor) -> Latency:
    for _ in range(WARMUP):
        _seconds(before, images)
        _seconds(after, images)
    times: list[tuple[float, float]] = []
    deadline = time.perf_counter() + BUDGET_SECONDS
    while len(times) < SMALLEST_COUNT or time.perf_counter() < deadline:
        # Each of the two is first in every other turn, so that neither always ends the slice.
        first, second = (before, after) if len(times) % 2 == 0 else (after, before)
        pair = _seconds(first, images), _seconds(second, images)
        times.append(pair if first is before else pair[::-1])
    return Latency(before=_quartile([b for b, _ in times]), after=_quartile([a for _, a in times]))


def _quartile(seconds: Sequence[float]) -> float:
    return sorted(seconds)[len(seconds) // 4]


def _seconds(model: nn.Module, images: Tensor) -> float:
    _wait(images)
    start = time.perf_counter()
    model(images)
    _wait(images)
    return time.perf_counter() - start


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)
