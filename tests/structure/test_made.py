"""Tensors that the forward makes are as wide as what gave them their size."""

import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.structure import Decision
from secateur.surgery import cut_


class FromShape(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        return self.down(torch.maximum(x, torch.zeros(x.shape[0], x.shape[1], dtype=x.dtype)))


class FromSize(FromShape):
    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        return self.down(x * torch.full((x.size(-1),), 2.0, dtype=x.dtype))


class WholeShape(FromShape):
    def forward(self, x: Tensor) -> Tensor:
        x = self.up(x)
        return self.down(x + x.new_ones(x.shape))


class Recurrent(nn.Module):
    """A recurrent net written by hand, whose state starts at zero."""

    def __init__(self):
        super().__init__()
        self.hidden = 8
        self.enter, self.again, self.leave = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), self.hidden)
        for _ in range(3):
            state = torch.tanh(self.enter(x) + self.again(state))
        return self.leave(state)


@pytest.mark.parametrize("build", [FromShape, FromSize, WholeShape, Recurrent])
def test_units_that_meet_a_made_tensor_leave_exactly(build):
    net, x = build(), torch.randn(2, 6)
    result = secateur.verify(net, x)
    assert result.num_units == 4
    structure = secateur.trace(net, x)
    cut_(net, structure, structure.everything(), Decision(units={0: torch.tensor([0, 3, 4])}))
    assert net(x).shape == (2, 3)


def test_a_state_of_literal_width_fixes_what_it_is_multiplied_by():
    class Literal(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            state = x.new_zeros(len(x), 8)
            for _ in range(3):
                state = torch.tanh(self.enter(x) + self.again(state))
            return self.leave(state)

    assert secateur.trace(Literal(), torch.randn(2, 6)).families == ()


def test_two_states_of_one_number_that_meet_different_units_fix_both():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.width = 5
            self.a, self.b = nn.Linear(6, 5), nn.Linear(6, 5)
            self.c, self.d = nn.Linear(5, 3), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            a = self.a(x) + x.new_zeros(self.width)
            b = self.b(x) + x.new_zeros(self.width)
            return self.c(a) + self.d(b)

    structure = secateur.trace(Two(), torch.randn(2, 6))
    assert structure.families == ()


def test_a_made_tensor_whose_content_decides_on_shapes_fixes_its_units():
    class Picks(FromShape):
        def forward(self, x: Tensor) -> Tensor:
            x = self.up(x)
            rows = torch.ones(x.shape[1], dtype=torch.bool).nonzero()
            return self.down(x[:, : len(rows)])

    assert secateur.trace(Picks(), torch.randn(2, 6)).families == ()
