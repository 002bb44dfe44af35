"""Latency: medians of two networks, both as they were afterwards."""

import time

import pytest
import torch
from torch import nn

from secateur.training.trainer import _latency, measure_latency


class Clock:
    """Stands still unless a network runs, so that the machine's load is not measured."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


class Slow(nn.Module):
    """Takes so many milliseconds; every fifth call takes ten times as long."""

    def __init__(self, milliseconds, clock):
        super().__init__()
        self.milliseconds = milliseconds
        self.clock = clock
        self.calls = []

    def forward(self, images):
        self.calls.append((len(images), self.training, torch.is_grad_enabled()))
        factor = 10 if len(self.calls) % 5 == 0 else 1
        self.clock.seconds += factor * self.milliseconds / 1000
        return images


def test_medians_of_both_at_batch_1_and_64(monkeypatch):
    monkeypatch.setattr(_latency, "BUDGET_SECONDS", 0.2)
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    slow, fast = Slow(6, clock), Slow(2, clock)
    fast.eval()
    found = measure_latency(slow, fast, torch.zeros(1, 1, 2, 2))
    assert found.keys() == {1, 64}
    for latency in found.values():
        assert latency.before == pytest.approx(0.006)
        assert latency.after == pytest.approx(0.002)
    assert {call[0] for call in slow.calls} == {1, 64}
    assert {call[1:] for call in slow.calls + fast.calls} == {(False, False)}
    assert (slow.training, fast.training) == (True, False)
