import pytest
from torch import distributed

from secateur.training._batch_sizes import EVERY, BatchSizes


def test_one_process_has_the_samples_of_each_step():
    sizes = BatchSizes()
    assert [sizes.of_step(number) for number in (8, 3, 0)] == [8, 3, 1]


@pytest.mark.usefixtures("one_process")
def test_processes_agree_at_once_and_then_on_the_mean_of_many_steps(monkeypatch):
    sent = []

    def and_a_twin_with_two_more_a_step(total):
        sent.append(int(total))
        total += total + 2 * (1 if len(sent) == 1 else EVERY)

    monkeypatch.setattr(distributed, "all_reduce", and_a_twin_with_two_more_a_step)
    sizes = BatchSizes()
    found = [sizes.of_step(number) for number in [10] + [8, 4] * EVERY]
    assert found == [10 + 12] * EVERY + [6 + 8] * (EVERY + 1)
    assert sent == [10, 6 * EVERY, 6 * EVERY]


@pytest.mark.usefixtures("one_process")
def test_a_larger_batch_is_known_after_the_next_agreement():
    sizes = BatchSizes()
    assert sizes.of_step(8) == 8
    assert [sizes.of_step(32) for _ in range(EVERY)] == [8] * (EVERY - 1) + [32]
