from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.storage._positions import count_positions, expand_runs, read_runs, write_runs


def test_neighbours_are_drawn_together() -> None:
    assert write_runs((0, 1, 2, 3, 7, 9, 10)) == "0-3,7,9-10"


@given(st.sets(st.integers(0, 60), min_size=1))
def test_what_is_written_is_read_again(positions: set[int]) -> None:
    runs = read_runs(write_runs(sorted(positions)))
    assert expand_runs(runs) == tuple(sorted(positions))
    assert count_positions(runs) == len(positions)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is neither a position nor a range of positions"),
        ("3,", "'' is neither a position nor a range of positions"),
        ("-1", "'-1' is neither a position nor a range of positions"),
        ("01", "'01' is neither a position nor a range of positions"),
        ("1.0", "'1.0' is neither a position nor a range of positions"),
        ("\u0661", "'\u0661' is neither a position nor a range of positions"),  # an Arabic 1
        ("1\n", "'1\\n' is neither a position nor a range of positions"),
        ("9" * 50, f"'{'9' * 40}' is neither a position nor a range of positions"),
        ("5-4", "positions must ascend, and '5-4' does not"),
        ("2,2", "positions must ascend, and '2' does not"),
        ("0-4,3-8", "positions must ascend, and '3-8' does not"),
    ],
)
def test_malformed_positions_are_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared
        read_runs(text)
    assert str(caught.value) == message


def test_a_huge_range_is_counted_without_being_expanded() -> None:
    assert count_positions(read_runs("0-999999999999")) == 10**12
