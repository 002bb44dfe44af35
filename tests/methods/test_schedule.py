"""When things happen, in long runs and short ones."""

import pytest

from secateur.errors import UsageError
from secateur.methods._schedule import plan


def test_a_long_run_has_a_patience_of_one_and_a_half_epochs():
    when = plan(total_steps=160 * 391, steps_per_epoch=391, settle_at=0.7)
    assert (when.warmup, when.settle, when.patience) == (200, 43792, 586)
    assert (when.hold, when.interval, when.epoch) == (146, 20, 391)


def test_short_epochs_give_a_patience_of_three_hundred_steps():
    assert plan(total_steps=10_000, steps_per_epoch=20, settle_at=0.7).patience == 300


@pytest.mark.parametrize("total_steps", [100, 180, 300, 345])
def test_in_a_short_run_a_useless_structure_still_has_time_to_go(total_steps):
    when = plan(total_steps=total_steps, steps_per_epoch=total_steps // 15, settle_at=0.7)
    assert when.warmup <= total_steps / 5
    assert when.warmup + 2 * (when.patience + when.hold) <= when.settle


def test_given_numbers_are_taken():
    when = plan(total_steps=100, steps_per_epoch=None, settle_at=0.5, warmup=3, patience=9, hold=2)
    assert (when.warmup, when.settle, when.patience, when.hold) == (3, 50, 9, 2)
    assert when.epoch == 2


def test_a_warm_up_that_lasts_until_settling_is_refused():
    with pytest.raises(UsageError, match=r"total_steps=100 with settle_at=0\.5 settles at step 50"):
        plan(total_steps=100, steps_per_epoch=None, settle_at=0.5, warmup=50)
