"""Latency: lower quartiles of two networks, both as they were afterwards."""

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


def test_seconds_of_both_at_batch_1_and_64(monkeypatch):
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


class Sliced(Clock):
    """Gives the process slices of 3 ms, and others 5 ms after each."""

    def run(self, milliseconds):
        for _ in range(round(10 * milliseconds)):
            self.seconds += 0.0001
            self.used = getattr(self, "used", 0) + 1
            if self.used % 30 == 0:
                self.seconds += 0.005


class Steady(nn.Module):
    def __init__(self, milliseconds, clock):
        super().__init__()
        self.milliseconds = milliseconds
        self.clock = clock

    def forward(self, images):
        self.clock.run(self.milliseconds)
        return images


@pytest.mark.parametrize("after", [1.5, 1.2, 0.8])
def test_waiting_for_other_processes_is_not_taken_for_latency(monkeypatch, after):
    clock = Sliced()
    monkeypatch.setattr(time, "perf_counter", clock)
    pair = Steady(1.5, clock), Steady(after, clock)
    found = measure_latency(*pair, torch.zeros(1, 1, 2, 2))
    for latency in found.values():
        assert latency.before == pytest.approx(0.0015)
        assert latency.after == pytest.approx(after / 1000)
