import torch
from torch import nn
from torch.testing import assert_close

from secateur.nn import Shortcut


def test_without_children_it_returns_its_first_argument_and_ignores_the_rest():
    x = torch.randn(2, 3)
    assert Shortcut({})(x, "mask", flag=True) is x


def test_a_lone_keyword_argument_is_the_input():
    x = torch.randn(2, 3)
    assert Shortcut({})(hidden_states=x, mask=None) is x


def test_children_run_in_order_under_their_old_names():
    stretch, shift = nn.Linear(1, 1), nn.Linear(1, 1)
    with torch.no_grad():
        stretch.weight.fill_(2.0), stretch.bias.zero_()
        shift.weight.fill_(1.0), shift.bias.fill_(3.0)
    shortcut = Shortcut({"stretch": stretch, "shift": shift})
    assert_close(shortcut(torch.tensor([[5.0]])), torch.tensor([[13.0]]))  # 5 * 2 + 3
    assert shortcut.stretch is stretch
    assert list(shortcut.state_dict()) == [
        "stretch.weight",
        "stretch.bias",
        "shift.weight",
        "shift.bias",
    ]
