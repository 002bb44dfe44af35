"""The price that finds a target."""

import pytest
import torch

from secateur.methods._budget import Ascent, opening_price, target_share


def test_the_wanted_complexity_falls_smoothly_between_warm_up_and_settling():
    when = {"first": 1.0, "last": 0.4, "warmup": 100, "settle": 500}
    assert target_share(0, **when) == 1.0
    assert target_share(100, **when) == 1.0
    assert target_share(250, **when) == pytest.approx(0.7)  # half of the fall of 300 steps
    assert target_share(400, **when) == pytest.approx(0.4)
    assert target_share(499, **when) == pytest.approx(0.4)


def test_the_opening_price_makes_half_of_what_has_to_go_too_expensive():
    # Five structures of cost 0.2, worth 1..5 nats per unit of cost; 0.8 has to go, half is 0.4.
    price = torch.full((5,), 0.2).double()
    rise = torch.tensor([5.0, 4, 3, 2, 1]).double() * 0.2
    assert opening_price(rise, price, 0.2) == pytest.approx(2.0)


def test_the_opening_price_is_positive_when_nothing_is_known_to_be_useful():
    assert opening_price(torch.zeros(3).double(), torch.ones(3).double(), 0.5) == 1.0
    rise = torch.tensor([-1.0, -2.0, 0.5]).double()
    assert opening_price(rise, torch.ones(3).double(), 0.5) == pytest.approx(0.5)


@pytest.mark.parametrize("right_price", [0.01, 0.3, 5.0])
def test_the_ascent_settles_on_the_price_of_its_target(right_price):
    # Complexity answers like an integrator: it falls by 1 / (2 T) a step and e-fold of price
    # above the right one.
    patience, share = 60, 1.0
    ascent = Ascent(patience)
    ascent.open(0.3)
    for _ in range(200):
        ascent.update(share - 0.4, 5)
        pull = torch.tensor(ascent.price / right_price).log().clamp(-2, 2)
        share = min(max(share - 5 * 0.5 / patience * float(pull), 0.05), 1.0)
    assert share == pytest.approx(0.4, abs=0.01)
    assert ascent.price == pytest.approx(right_price, rel=0.1)


def test_a_restored_ascent_continues_where_it_was():
    first, second = Ascent(10), Ascent(10)
    first.open(0.2)
    first.update(0.1, 5)
    second.load_state_dict(first.state_dict())
    first.update(-0.05, 5)
    second.update(-0.05, 5)
    assert first.price == second.price
