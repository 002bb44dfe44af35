import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur.errors import UsageError
from secateur.masks._bits import pack, unpack


def test_the_first_weight_is_the_lowest_bit():
    mask = torch.tensor([True, False, True, False, False, False, False, True, True])
    assert pack(mask).tolist() == [1 + 4 + 128, 1]


@given(st.lists(st.integers(0, 5), max_size=3), st.integers(0, 2**32 - 1))
def test_bits_return_the_mask(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(shape, generator=generator) < 0.5
    bits = pack(mask)
    assert len(bits) == -(-mask.numel() // 8)
    assert torch.equal(unpack(bits, mask.shape), mask)


def test_bits_of_another_tensor_are_refused():
    message = (
        "A mask of shape [3, 3] is stored in 2 bytes, and this is torch.uint8 of shape [3]. It "
        "belongs to another tensor; load masks into the model they were saved from."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        unpack(torch.zeros(3, dtype=torch.uint8), (3, 3))
