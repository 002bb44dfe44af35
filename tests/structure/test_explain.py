"""What `structure.explain` says of a tensor."""

from pathlib import Path

import pytest
import torch
from torch import nn

from secateur.errors import UsageError
from secateur.structure import trace


class Small(nn.Module):
    """A block with a shared statistic, a tied pair and a branch that can go."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(5, 6)
        self.block = Branch()
        self.norm = nn.LayerNorm(6)
        self.out = nn.Linear(6, 6)
        self.again = nn.Linear(6, 6)
        self.again.weight = self.out.weight
        self.register_buffer("steps", torch.arange(3))

    def forward(self, x):
        x = self.block(self.stem(x))
        return self.again(self.out(self.norm(x)))


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = nn.Linear(6, 8)
        self.narrow = nn.Linear(4, 6)

    def forward(self, x):
        a, b = self.wide(x).chunk(2, dim=-1)
        return x + self.narrow(a * b.sigmoid())


@pytest.fixture
def structure():
    return trace(Small(), torch.zeros(2, 5))


def test_an_axis_names_the_family_and_the_positions_of_each_unit(structure):
    found = structure.explain("block.wide.weight")
    (held,) = found.axes[0].holdings
    assert (held.family, held.num_units, held.positions_per_unit) == ("block.wide", 4, 2)
    assert not held.consumes
    assert structure.explain("block.narrow.weight").axes[1].holdings[0].consumes
    assert found.axes[0].fixed == ()
    assert found.layers == ("block",)
    assert "axis 0 (8 positions): belongs to the 4 units (head) of block.wide" in str(found)
    assert "leaves as a whole with the layer block" in str(found)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.out = nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 2)

    def forward(self, x):
        return self.out(self.norm(self.stem(x)))  # the line that is named below


def test_every_reason_against_an_axis_is_given_with_its_place():
    structure = trace(Normed(), torch.zeros(2, 5))
    (axis,) = structure.explain("stem.bias").axes
    ((reason, count),) = axis.fixed
    assert (count, axis.holdings) == (6, ())
    assert reason.message.startswith("shares a statistic")
    assert (reason.module, reason.operation) == ("norm", "aten.native_layer_norm")
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    number = 1 + next(i for i, text in enumerate(lines) if "the line that is named" in text)
    assert reason.source.endswith(f"test_explain.py:{number}")
    first, second = (axis.fixed for axis in structure.explain("stem.weight").axes)
    assert first == ((reason, 6),)
    assert {reason.operation for reason, _ in second} == {"aten.addmm"}


def test_a_tied_tensor_answers_to_each_of_its_names(structure):
    found = structure.explain("again.weight")
    assert found.tensor.name == "out.weight"
    assert "also named again.weight" in str(found)
    messages = {reason.message for axis in found.axes for reason, _ in axis.fixed}
    assert any("output of the model" in message for message in messages)
    assert any("shares a statistic" in message for message in messages)


def test_one_sentence_said_in_many_places_is_printed_once():
    layers = [nn.Linear(6, 6), *(nn.LayerNorm(6) for _ in range(4)), nn.Linear(6, 2)]
    text = str(trace(nn.Sequential(*layers), torch.zeros(2, 6)).explain("0.bias"))
    assert text.count("shares a statistic") == 1
    assert text.endswith(", and at 3 more")


def test_an_admitted_inexact_unit_says_why_it_is_inexact():
    structure = trace(Normed(), torch.zeros(2, 5), allow_inexact=True)
    assert "inexact: shares a statistic" in str(structure.explain("stem.bias"))


def test_whole_numbers_belong_to_no_unit(structure):
    assert "holds no units" in str(structure.explain("steps"))


def test_an_unknown_name_is_told_the_names_close_to_it(structure):
    with pytest.raises(UsageError, match=r"no parameter or buffer named 'stem.wight'.*stem.weight"):
        structure.explain("stem.wight")
    with pytest.raises(UsageError, match=r"'block.wide'.*block.wide.weight, block.wide.bias"):
        structure.explain("block.wide")
