"""Cells of tests do not spend their time on measuring latency."""

import pytest

from secateur.training.trainer import _latency


@pytest.fixture(autouse=True, scope="package")
def _short_measurement():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_latency, "BUDGET_SECONDS", 0.01)
        yield
