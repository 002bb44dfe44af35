"""A run draws from generators of its own, and they can be put back."""

import torch

from secateur.training.trainer._random_state import (
    load_generators_,
    own_generators,
    save_generators,
)

CPU = torch.device("cpu")


def test_the_generators_of_the_caller_are_left_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with own_generators(CPU, seed=7):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(inside, torch.rand(3, generator=torch.Generator().manual_seed(7)))


def test_saved_generators_draw_the_same_again():
    state = save_generators(CPU)
    first = torch.rand(3)
    load_generators_(CPU, state)
    assert torch.equal(torch.rand(3), first)
