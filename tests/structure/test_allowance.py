"""A trace that takes too long ends, and says where."""

import math
import re
import time

import pytest
import torch
from torch import nn

from secateur import trace
from secateur.errors import TraceError, UsageError


class _Steps(nn.Module):
    """Goes through many time steps."""

    def __init__(self, steps, seconds=0.0):
        super().__init__()
        self.cell, self.steps, self.seconds = nn.Linear(4, 4), steps, seconds

    def forward(self, x):
        for _ in range(self.steps):
            time.sleep(self.seconds)
            x = self.cell(x).tanh()
        return x


def test_too_many_operations_end_a_trace_in_the_module_that_ran():
    net = nn.Sequential(nn.Linear(3, 4), _Steps(10**9))
    message = (
        r"The trace was ended after \d+.\d seconds and 501 operations of a forward: it is here "
        r"\(1(.cell)?, aten.\w+, .*test_allowance.py:\d+\). Expected a forward that fits into "
        r"max_operations=500. Trace with a smaller example, such as fewer time steps of a loop "
        r"over them, or pass a larger limit."
    )
    with pytest.raises(TraceError, match=message):
        trace(net, torch.zeros(1, 3), max_operations=500)
    assert all(p.device.type == "cpu" for p in net.parameters())


def test_too_many_seconds_end_a_trace():
    net = nn.Sequential(nn.Linear(3, 4), _Steps(10**9, seconds=0.01))
    start = time.monotonic()
    with pytest.raises(TraceError, match=re.escape("fits into max_seconds=0.2.")):
        trace(net, torch.zeros(1, 3), max_seconds=0.2)
    assert time.monotonic() - start < 5


def test_a_forward_within_its_limits_is_traced():
    net = nn.Sequential(_Steps(20), nn.Linear(4, 4), nn.Linear(4, 2))
    assert trace(net, torch.zeros(1, 4), max_operations=2_000).num_units == 4
    assert (
        trace(net, torch.zeros(1, 4), max_operations=math.inf, max_seconds=math.inf).num_units == 4
    )


@pytest.mark.parametrize("limits", [{"max_seconds": 0}, {"max_operations": -1}])
def test_a_limit_of_nothing_is_refused(limits):
    with pytest.raises(UsageError, match="expected numbers above zero"):
        trace(nn.Linear(2, 2), torch.zeros(1, 2), **limits)
