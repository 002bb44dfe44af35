import json
import re

import pytest

from secateur.errors import StorageError
from secateur.report._events import Epoch, Remove, read_events
from tests.report.synthetic_runs import search_events, start, write_run


def write_lines(folder, *lines):
    (folder / "events.jsonl").write_text("\n".join(lines))
    return folder


FIRST = json.dumps(start())


def test_every_event_of_a_run_is_read(tmp_path):
    events = search_events()
    log = read_events(write_run(tmp_path, events))
    assert len(log.events) == len(events) - 1
    assert log.start.model == "resnet20"
    assert not log.is_torn
    assert log.unknown == ()


def test_a_torn_last_line_is_left_out_and_said(tmp_path):
    log = read_events(
        write_lines(tmp_path, FIRST, '{"event": "epoch", "step": 5}', '{"event": "ep')
    )
    assert log.is_torn
    assert [type(event) for event in log.events] == [Epoch]


def test_a_line_torn_within_a_letter_is_left_out(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(FIRST.encode() + b'\n{"event": "step", "model": "\xc3')
    assert read_events(tmp_path).is_torn


def test_a_last_line_that_is_whole_but_for_its_line_break_counts(tmp_path):
    log = read_events(write_lines(tmp_path, FIRST, '{"event": "epoch", "step": 5}'))
    assert not log.is_torn
    assert len(log.events) == 1


def test_a_run_cut_at_any_byte_is_read_as_far_as_it_came(tmp_path):
    whole = write_run(tmp_path, search_events()).joinpath("events.jsonl").read_bytes()
    beginning = whole.index(b"\n") + 1
    for end in range(beginning, len(whole), 997):
        (tmp_path / "events.jsonl").write_bytes(whole[:end])
        log = read_events(tmp_path)
        # A line is whole with its closing brace, with or without the line break after it.
        complete = whole[:end].count(b"\n") + whole[:end].endswith(b"}")
        assert abs(len(log.events) + 1 - complete) <= log.is_torn


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (
            '{"event": "ep',
            "is not JSON (Unterminated string starting at: line 1 column 11 (char 10))",
        ),
        ("\x00\x00\x00", "is not JSON (Expecting value: line 1 column 1 (char 0))"),
        ("[1, 2]", "holds a list instead of an object"),
        ('{"step": 3}', "has a wrong field 'event' (Field required)"),
        (
            '{"event": "epoch", "step": -1}',
            "has a wrong field 'step' (Input should be greater than or equal to 0)",
        ),
        (
            '{"event": "remove", "step": 3, "units": {"conv1": 4}}',
            "has a wrong field 'units.conv1' (Input should be a valid tuple)",
        ),
    ],
)
def test_a_damaged_line_is_named_with_its_file_and_number(tmp_path, line, what):
    write_lines(tmp_path, FIRST, '{"event": "epoch", "step": 5}', line, "")
    message = (
        f"{tmp_path / 'events.jsonl'}, line 3 {what}. Every line must be one event as secateur "
        "writes it; restore the file from a copy, or delete that line and ask for the report again."
    )
    with pytest.raises(StorageError, match=f"^{re.escape(message)}$"):
        read_events(tmp_path)


def test_brackets_nested_beyond_reason_are_a_damaged_line(tmp_path):
    write_lines(tmp_path, FIRST, "[" * 200_000, "")
    with pytest.raises(StorageError, match="line 2 is not JSON"):
        read_events(tmp_path)


def test_a_folder_without_events_says_what_is_expected(tmp_path):
    path = tmp_path / "events.jsonl"
    message = f"{path} cannot be read (No such file or directory). A run folder"
    with pytest.raises(StorageError, match=re.escape(message)):
        read_events(tmp_path)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "holds no event yet"),
        ('{"event": "epoch", "step": 1}\n', "starts with a 'epoch' event"),
    ],
)
def test_a_file_that_does_not_start_with_a_start_is_refused(tmp_path, text, what):
    write_lines(tmp_path, text)
    with pytest.raises(StorageError, match=f"{what}. Its first line must be a 'start' event"):
        read_events(tmp_path)


def test_events_of_an_unknown_kind_are_left_out_and_named(tmp_path):
    log = read_events(write_lines(tmp_path, FIRST, '{"event": "weather", "step": 5}', ""))
    assert log.unknown == ("weather",)
    assert log.events == ()


def test_what_a_resumed_run_does_again_counts_once(tmp_path):
    steps = [json.dumps({"event": "epoch", "step": step}) for step in (10, 20, 30)]
    again = json.dumps(start() | {"step": 10})
    later = [json.dumps({"event": "epoch", "step": step}) for step in (20, 30, 40)]
    log = read_events(write_lines(tmp_path, FIRST, *steps, again, *later, ""))
    assert [event.step for event in log.events] == [10, 20, 30, 40]


def test_fields_of_a_later_version_do_no_harm(tmp_path):
    line = '{"event": "remove", "step": 5, "units": {"a": [1, 2]}, "mood": "good"}'
    (event,) = read_events(write_lines(tmp_path, FIRST, line, "")).events
    assert isinstance(event, Remove)
    assert event.units == {"a": (1, 2)}
