"""What may happen to an axis of which a single position is left."""

import pytest
import torch
from torch import nn

from secateur import verify
from secateur.errors import MiswiredError
from secateur.structure import Decision, trace
from secateur.surgery import cut_


class _Squeezed(nn.Module):
    def __init__(self, squeeze):
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 5, 3), nn.Linear(5, 2)
        self.squeeze = squeeze

    def forward(self, x):
        return self.last(self.squeeze(self.conv(x).mean((2, 3), keepdim=True)))


@pytest.mark.parametrize(
    "squeeze",
    [torch.squeeze, lambda x: x.squeeze_(), lambda x: x.squeeze(1).flatten(1)],
    ids=["all", "in place", "one axis"],
)
def test_an_axis_that_is_squeezed_keeps_two_positions(squeeze):
    model, x = _Squeezed(squeeze), torch.randn(2, 3, 6, 6)
    (family,) = trace(model, x).families
    assert family.num_units == 4
    assert verify(model, x, fraction=0.9).num_units == 3


def test_an_axis_put_in_in_place_keeps_units():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.last = nn.Linear(3, 6), nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x):
            parts = [layer(x).unsqueeze_(dim=1) for layer in (self.one, self.two)]
            return self.last(torch.cat(parts, dim=1).sum(dim=1))

    assert verify(Net(), torch.randn(4, 3)).num_units == 3


class _Turning(nn.Module):
    """Takes another way once a single unit is left, which no longer fits."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        x = self.first(x)
        return self.last(x[:, 0] if x.shape[1] == 1 else x)


def test_a_product_of_sizes_that_do_not_fit_is_refused():
    model, x = _Turning(), torch.randn(2, 3)
    structure = trace(model, x)
    gone = Decision(units={0: torch.arange(3)})
    with pytest.raises(MiswiredError, match="a product sums over 2 and 1 positions"):
        cut_(model, structure, structure.everything(), gone)
    assert model(x).shape == (2, 2)
