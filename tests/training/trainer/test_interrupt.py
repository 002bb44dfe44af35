"""Ctrl-C: the first asks, the second interrupts, and the handler of before comes back."""

import signal
import threading

import pytest

from secateur.training.trainer._interrupt import interruptible


def test_the_first_asks_and_the_second_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as request:
        assert not request.is_made
        signal.raise_signal(signal.SIGINT)
        assert request.is_made
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_go_without():
    found = []

    def work():
        with interruptible() as request:
            found.append(request.is_made)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
