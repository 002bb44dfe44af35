import math
import re
from collections import Counter

import pytest

from secateur.errors import UsageError
from secateur.methods.stoppers import (
    AccuracyReached,
    AllOf,
    AnyOf,
    FixedChunks,
    LossPlateau,
    RandomStop,
    Stopper,
)


def values(*numbers):
    remaining = iter(numbers)
    return lambda: next(remaining)


def checks(stopper, number, level=1):
    """Chunks of a level until the stopper ends it, at most a number."""
    stopper.level_begins(level)
    for chunk in range(1, number + 1):
        if stopper.should_stop(chunk):
            return chunk
    stopper.level_ends(level)
    return None


def test_fixed_chunks_are_counted_in_every_level():
    stopper = FixedChunks(3)
    assert [checks(stopper, 9, level) for level in range(3)] == [3, 3, 3]
    assert stopper.because == "3 chunks"


def test_a_random_stop_spends_the_budget_of_the_other_run_in_another_order():
    chunks = [5, 1, 1, 3, 2, 4, 1, 7]
    drawn = [
        [checks(stopper, 9, level) for level in range(8)]
        for stopper in (RandomStop(chunks, seed=seed) for seed in range(3))
    ]
    assert all(Counter(order) == Counter(chunks) for order in drawn)
    assert len({tuple(order) for order in [chunks, *drawn]}) == 4
    again = RandomStop(chunks, seed=0)
    assert [checks(again, 9, level) for level in range(8)] == drawn[0]


def test_a_random_stop_refuses_more_levels_than_it_has_numbers_for():
    message = (
        "RandomStop was given the chunks of 2 levels, and level 2 begins. Give one number for "
        "every level, the dense one included."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        RandomStop([1, 1]).level_begins(2)


@pytest.mark.parametrize("make", [lambda: FixedChunks(0), lambda: RandomStop([2, 0])])
def test_levels_without_training_are_refused(make):
    with pytest.raises(UsageError, match=r"at least (one|1)"):
        make()


def test_the_best_accuracy_of_the_dense_level_is_the_target():
    stopper = AccuracyReached(values(0.8, 0.95, 0.9, 0.7, 0.949, 0.95))
    assert checks(stopper, 3, level=0) is None
    assert checks(stopper, 3, level=1) == 3
    assert stopper.because == "accuracy 0.95 reaches 0.95"
    assert stopper.readings == {"accuracy": 0.95}


def test_a_margin_lowers_the_target_and_patience_asks_for_it_in_a_row():
    stopper = AccuracyReached(
        values(0.89, 0.91, 0.89, 0.91, 0.92), target=1.0, margin=0.1, patience=2
    )
    assert checks(stopper, 9, level=0) == 5


def test_min_chunks_are_trained_even_if_the_accuracy_is_there():
    assert checks(AccuracyReached(lambda: 1.0, target=0.5, min_chunks=3), 9) == 3


def test_without_a_dense_level_nothing_is_reached():
    assert checks(AccuracyReached(lambda: 1.0), 5) is None


def test_an_accuracy_that_is_not_a_number_reaches_nothing():
    assert checks(AccuracyReached(lambda: math.nan, target=-math.inf), 5) is None
    assert checks(AccuracyReached(lambda: math.nan, target=0.5), 5) is None


def test_a_new_run_forgets_the_dense_accuracy_of_the_old():
    stopper = AccuracyReached(values(0.99, 0.5, 0.5))
    checks(stopper, 1, level=0)
    checks(stopper, 1, level=0)
    assert checks(stopper, 1, level=1) == 1


def test_a_loss_that_has_not_fallen_for_a_while_is_a_plateau():
    """Best 1.0 at the third check; 1.1 and 1.05 are two checks without a new best."""
    stopper = LossPlateau(values(3.0, 2.0, 1.0, 1.1, 1.05, 0.2), patience=2)
    assert checks(stopper, 9) == 5
    assert stopper.because == "loss 1.05 is no longer below 1"


def test_a_loss_has_to_fall_by_more_than_the_least_difference():
    assert checks(LossPlateau(values(2.0, 1.95, 1.91, 1.0), patience=2, min_delta=0.1), 9) == 3


def test_every_level_has_a_plateau_of_its_own():
    stopper = LossPlateau(values(1.0, 1.0, 5.0, 4.0, 3.0), patience=1)
    assert checks(stopper, 2, level=0) == 2
    assert checks(stopper, 3, level=1) is None


def test_a_loss_that_is_not_a_number_is_no_plateau():
    assert checks(LossPlateau(lambda: math.nan, patience=1), 5) is None


class At(Stopper):
    """Says yes at given chunks, and remembers what it was asked."""

    def __init__(self, *chunks, name="x"):
        super().__init__()
        self.chunks, self.name, self.calls = chunks, name, []

    def level_begins(self, level):
        self.calls.append(("begin", level))

    def should_stop(self, chunks):
        self.calls.append(chunks)
        self.readings = {self.name: float(chunks)}
        self.because = f"{self.name} at {chunks}" if chunks in self.chunks else ""
        return bool(self.because)

    def level_ends(self, level):
        self.calls.append(("end", level))


def test_any_of_stops_with_the_first_and_all_of_when_they_agree():
    assert checks(AnyOf(At(4), At(2)), 9) == 2
    assert checks(AllOf(At(2, 5), At(3, 5)), 9) == 5


def test_all_stoppers_see_every_chunk_and_both_ends_of_a_level():
    first, second = At(1), At()
    both = AllOf(first, second)
    checks(both, 2, level=3)
    assert first.calls == second.calls == [("begin", 3), 1, 2, ("end", 3)]


def test_readings_of_all_are_kept_and_the_reason_names_those_who_agreed():
    both = AnyOf(At(1, name="flow distance"), At(name="flow distance"), At(1, name="accuracy"))
    assert both.should_stop(1)
    assert both.readings == {"flow distance": 1.0, "flow distance 2": 1.0, "accuracy": 1.0}
    assert both.because == "flow distance at 1 and accuracy at 1"
    all_of = AllOf(At(1), At())
    assert not all_of.should_stop(1)
    assert all_of.because == ""


@pytest.mark.parametrize("kind", [AnyOf, AllOf])
def test_a_combination_of_nothing_is_refused(kind):
    message = (
        f"{kind.__name__}() combines nothing. Give it stoppers, such as "
        f"{kind.__name__}(FlowConsistency(flow), AccuracyReached(evaluate))."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        kind()


@pytest.mark.parametrize("settings", [{"patience": 0}, {"min_chunks": 0}])
def test_patience_and_least_chunks_count_from_one(settings):
    with pytest.raises(UsageError, match=r"^AccuracyReached got patience=\d and min_chunks=\d\. "):
        AccuracyReached(lambda: 1.0, **settings)
