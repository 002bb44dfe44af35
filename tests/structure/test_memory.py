"""What a model keeps for its next call is told apart from what it returns."""

import pytest
import torch
from torch import nn

from secateur import trace


class _Box:
    def __init__(self, tensor):
        self.tensor = tensor


class _Inner(nn.Module):
    """Writes into the box it is given; what it returns decides what the box is."""

    def __init__(self, returned):
        super().__init__()
        self.linear, self.returned = nn.Linear(3, 4), returned

    def forward(self, x, box):
        box.tensor = self.linear(x)
        return {"nothing": None, "box": box, "tensor": box.tensor * 1.0}[self.returned]


class _Outer(nn.Module):
    def __init__(self, returned, alone):
        super().__init__()
        self.inner, self.last, self.alone = _Inner(returned), nn.Linear(4, 2), alone

    def forward(self, x):
        box = _Box(x)
        self.inner(x, box)
        result = self.last(box.tensor)
        if self.alone:
            box.tensor = result
            return {"box": box}
        return {"result": result, "box": box}


@pytest.mark.parametrize(
    ("returned", "alone", "num_families"),
    [("nothing", False, 0), ("box", False, 0), ("tensor", True, 1), ("tensor", False, 1)],
)
def test_only_what_is_given_beside_tensors_and_returned_beside_results_is_memory(
    returned, alone, num_families
):
    structure = trace(_Outer(returned, alone), torch.zeros(1, 3))
    assert len(structure.families) == num_families
    assert any("output of the model" in fixed.reason.message for fixed in structure.fixed)
