import pytest

from secateur.surgery._journal import Journal


def test_what_was_noted_is_undone_last_first_when_the_block_fails():
    done = []
    with pytest.raises(KeyboardInterrupt), Journal() as journal:  # noqa: PT012
        journal.note(lambda: done.append("first"))
        journal.note(lambda: done.append("second"))
        raise KeyboardInterrupt
    assert done == ["second", "first"]


def test_nothing_is_undone_when_the_block_succeeds():
    done = []
    with Journal() as journal:
        journal.note(lambda: done.append("first"))
    assert done == []
