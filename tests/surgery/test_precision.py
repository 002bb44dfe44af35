import math

import pytest
import torch
from torch import nn

from secateur.errors import MiswiredError, UsageError
from secateur.surgery import verify
from secateur.surgery._precision import Precision, allowed_difference


class NormInside(nn.Module):
    """An RMS norm as language models write it: the statistic is taken in a type of its own."""

    def __init__(self, width, inside):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.inside = inside

    def forward(self, x):
        y = x.to(self.inside)
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * y.to(x.dtype)


def normed(inside):
    torch.manual_seed(0)
    norm = NormInside(24, inside)
    return nn.Sequential(nn.Linear(5, 24), norm, nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))


TOKENS = torch.linspace(-2, 2, 70).view(2, 7, 5)


def test_a_norm_that_computes_in_float32_inside_may_round_to_float32():
    found = verify(normed(torch.float32), TOKENS, allow_inexact=True)
    assert found.precision == "float32"
    assert 1e-10 < found.difference <= 64 * 2**-23
    assert "(it computes in float32)" in str(found)


def test_the_bound_of_a_model_in_float64_throughout_stays_tight():
    found = verify(normed(torch.float64), TOKENS, allow_inexact=True)
    assert found.precision == "float64"
    assert found.difference < 1e-14
    assert "computes in" not in str(found)
    assert allowed_difference(torch.float64) == 1e-10


def shifted(tensor, axes):
    """Take a wrong column for one of those that a weight keeps."""
    result = tensor.detach()
    for axis, kept in axes.items():
        wrong = kept.clone()
        if axis == 1:
            wrong[0] = next(i for i in range(tensor.shape[1]) if i not in kept)
        result = result.index_select(axis, wrong)
    return result


def test_one_wrong_position_is_caught_in_a_model_that_rounds_to_float32(monkeypatch):
    monkeypatch.setattr("secateur.surgery._shrink.selected", shifted)
    with pytest.raises(MiswiredError, match=r"differs from the masked one by .*at most 8e-06"):
        verify(normed(torch.float32), TOKENS, allow_inexact=True)


@pytest.mark.parametrize("inside", [torch.float32, torch.float64])
def test_an_output_off_by_more_than_rounding_is_caught(monkeypatch, inside):
    error = {torch.float32: 2e-5, torch.float64: 2e-10}[inside]

    class Off(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = normed(inside)

        def forward(self, x):
            return self.net(x) * (1 + error * (len(self.net[2].weight) < 16))

    monkeypatch.setattr("secateur.surgery._cut.prove", lambda *_: None)
    with pytest.raises(MiswiredError, match="differs from the masked one"):
        verify(Off(), TOKENS, allow_inexact=True)


def test_a_model_that_rounds_to_half_precision_is_refused():
    with pytest.raises(UsageError, match="The model rounds to bfloat16 in its forward"):
        verify(normed(torch.bfloat16), TOKENS, allow_inexact=True)


x64, x32 = torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.float32)


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda: x64 * 2 + x64.mean(), torch.float64),
        (lambda: x32.double() * x64, torch.float64),
        (lambda: torch.zeros_like(x64, dtype=torch.float32), torch.float64),
        (lambda: (x64 > 0).float(), torch.float64),
        (lambda: torch.arange(3, dtype=torch.float32) * 2.0, torch.float64),
        (lambda: x64.float(), torch.float32),
        (lambda: x64.softmax(0, dtype=torch.float32), torch.float32),
        (lambda: x64.sum(dtype=torch.float32), torch.float32),
        (lambda: x32.clone().copy_(x64), torch.float32),
        (lambda: x64.float().half().double(), torch.float16),
        (lambda: torch.polar(x64, x64).to(torch.complex64), torch.float32),
        (lambda: torch.stack([x64.bfloat16(), x64.bfloat16()]), torch.bfloat16),
    ],
)
def test_only_rounding_on_the_way_counts(compute, expected):
    with Precision() as precision:
        compute()
    found = torch.finfo(precision.coarsest).eps
    assert math.isclose(found, torch.finfo(expected).eps)
