"""The clean room every test runs in, and the switch that rewrites golden files."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import hypothesis
import lightning_fabric  # noqa: F401 (sets environment variables when imported)
import numpy as np
import pytest
import torch

from tests.clean_room import Snapshot

SEED_VARIABLE = "SECATEUR_TEST_SEED"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regen", action="store_true", help="Rewrite the files in tests/golden.")


def pytest_configure() -> None:
    # Two cores shared by two workers; and sums in one order, so that equal seeds give equal bits.
    torch.set_num_threads(1)
    free = os.environ.get(SEED_VARIABLE) == "random"
    # No deadline: how long an example takes says more about the machine than about the code.
    hypothesis.settings.register_profile("house", derandomize=not free, deadline=None)
    hypothesis.settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # Each worker collects the tests on its own, and a set prints in another order in each.
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        sets = [value for value in parameters.values() if isinstance(value, set) and len(value) > 1]
        if any(str(value) in item.name for value in sets):
            raise pytest.UsageError(f"{item.nodeid} is named after a set: give a list instead.")


@pytest.fixture
def regen(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten instead of compared."""
    return bool(request.config.getoption("--regen"))


@pytest.fixture(autouse=True)
def _clean_room() -> Iterator[None]:
    """Seed the generators, and fail a test that leaves the process other than it found it.

    SECATEUR_TEST_SEED=random frees the seed: tests that only pass by luck show themselves.
    """
    before = Snapshot.take()
    wish = os.environ.get(SEED_VARIABLE, "0")
    seed = random.SystemRandom().randrange(2**32) if wish == "random" else int(wish)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    yield
    complaints = before.complaints()
    before.restore()
    if complaints:
        pytest.fail(f"The test (seed {seed}) left traces: {'; '.join(complaints)}.", pytrace=False)
