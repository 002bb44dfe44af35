"""Rounding of widths."""

import pytest

from secateur.models import scaled


@pytest.mark.parametrize(
    ("channels", "width", "expected"),
    [(64, 1.0, 64), (64, 0.7, 45), (64, 0.6, 38), (16, 1.5, 24), (16, 0.01, 1)],
)
def test_widths_are_rounded_and_never_vanish(channels, width, expected):
    assert scaled(channels, width) == expected
