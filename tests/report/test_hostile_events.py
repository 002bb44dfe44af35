"""Whatever a run folder holds, the report is a page or an error that names the file."""

import copy
import json
import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from secateur.errors import SecateurError, StorageError
from secateur.report import write_picture, write_report
from tests.report.synthetic_runs import search_events, write_run

EVENTS = search_events(epochs=10)
FIRSTS = {event["event"]: place for place, event in reversed(list(enumerate(EVENTS)))}
ODD = st.sampled_from([
    None, True, -1, 0, 10**400, -(10**400), 1e308, 5e-324, math.nan, math.inf, -math.inf,
    "", "1", "\x00", "\ud800", "<b>", [], [1], [math.nan] * 6, {}, {"conv1": 10**400},
    {"conv1": [10**400]}, {"layer2.1": -math.inf}, {"1": {"before": math.nan, "after": 1e308}},
    {"1": {"before": 5e-324, "after": 1e308}}, {"name": "x", "settings": {"price": 10**400}},
    {"settings": {"target_macs": math.nan}}, {"settings": {"target_macs": [{}]}},
    [{"name": "a", "units": 0}], [{"name": "a", "units": 10**400}], ["layer2.1", "layer2.1", ""],
])  # fmt: skip


PLACES = [(kind, field) for kind, at in FIRSTS.items() for field in EVENTS[at] if field != "event"]
EDITS = st.lists(st.tuples(st.sampled_from(PLACES), ODD), min_size=1, max_size=4)


def odd_run(folder, edits):
    """A plausible run in which the first events of some kinds hold something odd."""
    events = copy.deepcopy(EVENTS)
    for (kind, field), value in edits:
        events[FIRSTS[kind]][field] = value
    return write_run(folder, events)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("odd")


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(edits=EDITS)
def test_odd_values_give_a_page_or_an_error_that_names_the_line(folder, edits):
    run = odd_run(folder, edits)
    try:
        page = write_report(run).read_text()
    except StorageError as error:
        complaint = str(error)
    else:
        assert page.startswith("<!doctype html>")
        json.loads(
            page.partition('id="figures">')[2].partition("</script>")[0],
            parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"),
        )
        return
    assert "events.jsonl, line " in complaint


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(edits=EDITS)
def test_odd_values_give_a_picture_or_one_of_our_errors(folder, edits):
    run = odd_run(folder, edits)
    try:
        picture = write_picture(run, folder / "p.svg").read_text()
    except SecateurError:
        return
    assert ET.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    assert not re.search(r"[^a-z](nan|inf)\b", picture)
