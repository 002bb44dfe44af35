"""Latency: medians of two networks, both as they were afterwards."""

import time

import pytest
import torch
from torch import nn

from secateur.training.trainer import _latency, measure_latency


class Slow(nn.Module):
    """Takes so many milliseconds; every fifth call takes ten times as long."""

    def __init__(self, milliseconds):
        super().__init__()
        self.milliseconds = milliseconds
        self.calls = []

    def forward(self, images):
        self.calls.append((len(images), self.training, torch.is_grad_enabled()))
        factor = 10 if len(self.calls) % 5 == 0 else 1
        time.sleep(factor * self.milliseconds / 1000)
        return images


def test_medians_of_both_at_batch_1_and_64(monkeypatch):
    monkeypatch.setattr(_latency, "BUDGET_SECONDS", 0.2)
    slow, fast = Slow(6), Slow(2)
    fast.eval()
    found = measure_latency(slow, fast, torch.zeros(1, 1, 2, 2))
    assert found.keys() == {1, 64}
    for latency in found.values():
        assert latency.before == pytest.approx(0.006, rel=0.5)
        assert latency.after == pytest.approx(0.002, rel=0.8)
    assert {call[0] for call in slow.calls} == {1, 64}
    assert {call[1:] for call in slow.calls + fast.calls} == {(False, False)}
    assert (slow.training, fast.training) == (True, False)
