from functools import partial

import pytest
import torch
from torch import nn

import secateur
from secateur import models
from secateur.errors import UsageError
from secateur.structure import Decision, trace
from secateur.surgery import cut_, redesign, widen

EXAMPLE = torch.zeros(2, 3, 8, 8)


class Net(nn.Module):
    """A stream with a branch whose last norm starts at zero, and a head."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.up = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2 * width)
        self.down = nn.Conv2d(2 * width, width, 1)
        self.last = nn.BatchNorm2d(width)
        nn.init.zeros_(self.last.weight)
        self.head = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.last(self.down(torch.relu(self.norm(self.up(x))))))
        return self.head(x.mean(dim=(2, 3)))


def test_found_widths_are_those_of_the_new_network():
    searched = Net()
    structure = trace(searched, EXAMPLE)
    gone = Decision(units={0: torch.tensor([3, 5, 8]), 1: torch.arange(40)})
    live, _ = cut_(searched, structure, structure.everything(), gone)
    fresh = redesign(Net, EXAMPLE, live)
    assert [t.shape for t in fresh.parameters()] == [t.shape for t in searched.parameters()]
    assert fresh(EXAMPLE).shape == (2, 2)


def test_a_layer_that_was_found_useless_is_not_there():
    structure = trace(Net(), EXAMPLE)
    live = structure.everything().without(Decision(layers=(0,)))
    fresh = redesign(Net, EXAMPLE, live)
    assert sum(p.numel() for p in fresh.parameters()) == 32 * 27 + 32 + 64 + 2


def test_weights_are_drawn_for_the_new_widths():
    """The default of a convolution is uniform within 1 / sqrt(fan-in)."""
    fresh = redesign(Net, EXAMPLE, {"up": 4})
    bound = 1 / 4**0.5
    assert fresh.down.weight.abs().max() <= bound
    # 128 draws: the chance that none of them lies in the outer tenth is 1e-6.
    assert fresh.down.weight.abs().max() > 0.9 * bound


def test_two_calls_draw_different_weights():
    one, two = (redesign(Net, EXAMPLE, {"up": 4}) for _ in range(2))
    assert not torch.equal(one.up.weight, two.up.weight)


def test_what_the_builder_sets_to_a_constant_keeps_it():
    fresh = redesign(Net, EXAMPLE, {"up": 4})
    assert fresh.last.weight.tolist() == [0.0] * 32
    assert fresh.norm.weight.tolist() == [1.0] * 4
    assert fresh.norm.running_var.tolist() == [1.0] * 4


def test_an_initialisation_of_ones_own_has_the_last_word():
    def initialise(model: nn.Module) -> None:
        for parameter in model.parameters():
            nn.init.constant_(parameter, 0.5)

    fresh = redesign(Net, EXAMPLE, {"up": 4}, initialise=initialise)
    assert all(bool((parameter == 0.5).all()) for parameter in fresh.parameters())


def test_a_redesigned_network_can_be_saved_and_loaded(tmp_path):
    fresh = redesign(Net, EXAMPLE, {"up": 4}).eval()
    secateur.save(fresh, tmp_path / "small")
    again = secateur.load(Net, tmp_path / "small").eval()
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(again(x), fresh(x))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"none": 3}, "no family 'none'"),
        ({"up": 0}, "Give a number from 1"),
        ({"up": 65}, "Give a number from 1"),
    ],
)
def test_widths_of_no_such_network_are_refused(found, message):
    with pytest.raises(UsageError, match=message):
        redesign(Net, EXAMPLE, found)


def test_what_was_found_in_another_network_is_refused():
    live = trace(Net(16), EXAMPLE).everything()
    with pytest.raises(UsageError, match="Pass the builder of the network that was searched"):
        redesign(Net, EXAMPLE, live)


def test_a_builder_with_a_width_builds_wider_networks():
    assert widen(Net, 1.5)().stem.out_channels == 48
    assert widen(Net, 0.01)().stem.out_channels == 1
    build = widen(partial(models.build, "resnet20", 10, 3, 32), 2.0)
    assert build().conv.out_channels == 32
    assert widen(lambda inner=4: nn.Linear(2, inner), 2, parameter="inner")().out_features == 8


def test_a_builder_without_a_width_is_refused():
    with pytest.raises(UsageError, match="takes no number called width or"):
        widen(lambda depth=3: nn.Linear(2, depth), 2.0)
    with pytest.raises(UsageError, match="takes no number called inner"):
        widen(Net, 2.0, parameter="inner")
    with pytest.raises(UsageError, match="positive number"):
        widen(Net, 0.0)
