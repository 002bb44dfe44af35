"""Every promise on networks whose source is written at random; see `tests.properties.written`."""

import os
import random
import warnings

import pytest

from secateur import trace
from tests.conftest import SEED_VARIABLE
from tests.properties.promises import check_promises
from tests.properties.written import architecture

NUM_NETWORKS = 300
FREE = os.environ.get(SEED_VARIABLE) == "random"
FIRST = random.SystemRandom().randrange(10**9) if FREE else 0


ATTENDING = [
    number
    for number in range(0, NUM_NETWORKS, 6)
    if any(
        text in architecture(FIRST + number).source for text in ("w.softmax(", "dot_product_att")
    )
]


@pytest.mark.parametrize("number", range(NUM_NETWORKS))
def test_a_network_written_at_random_keeps_every_promise(number):
    _check(number)


@pytest.mark.parametrize("number", ATTENDING)
def test_positions_inside_heads_keep_every_promise(number):
    _check(number, head_dims=True)


def test_some_networks_have_positions_inside_heads():
    structures = (
        trace(found.build(), found.example(), head_dims=True)
        for found in (architecture(FIRST + number) for number in ATTENDING)
    )
    kinds = [{family.kind for family in structure.families} for structure in structures]
    assert FREE or sum("dimension" in found for found in kinds) > len(ATTENDING) // 3


def _check(number, *, head_dims=False):
    found = architecture(FIRST + number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, about what some of the networks do
        try:
            check_promises(found.build, found.example(), head_dims=head_dims)
        except Exception as error:
            error.add_note(f"The network of seed {found.seed}:\n\n{found.source}")
            raise


def test_equal_seeds_write_equal_networks():
    assert architecture(7).source == architecture(7).source
    assert architecture(7).source != architecture(8).source


def test_most_of_what_is_written_can_be_removed():
    """A fuzzer that writes nothing removable finds nothing wrong."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kept = [check_promises(a.build, a.example()) for a in map(architecture, range(20))]
    assert sum(k.free_share for k in kept) / len(kept) > 0.6
    assert sum(k.num_layers > 0 for k in kept) > 5
