import html
import json
import math
import re
import stat

import plotly.graph_objects
import pytest

from secateur.errors import StorageError
from secateur.report import _page, _text, write_report
from secateur.report._templates import templates
from tests.report.synthetic_runs import (
    dense_events,
    search_events,
    start,
    write_run,
)

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & %{y} <b>"


def text_of(path):
    """The page without its scripts and tags, as a reader sees it."""
    page = re.sub(r"<(script|style).*?</\1>", "", path.read_text(), flags=re.DOTALL)
    words = html.unescape(re.sub(r"<[^>]*>", " ", page))
    return re.sub(
        r"\s+",
        " ",
        words.replace(_text.NBSP, " ").replace(_text.MINUS, "-").replace(_text.TIMES, "x"),
    )


def scripts_of(path):
    """How many scripts a browser would start."""
    return len(re.findall(r"<script[\s>]", path.read_text(), flags=re.IGNORECASE))


def figures_of(path):
    """The figures as the page's script reads them."""
    (data,) = re.findall(
        r'<script type="application/json" id="figures">(.*?)</script>', path.read_text()
    )
    return json.loads(data)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return (
        write_run(folder / "found", search_events()),
        write_run(folder / "dense", dense_events()),
    )


@pytest.fixture(scope="module")
def report(runs):
    found, dense = runs
    return write_report(found, baseline=dense)


def test_the_page_lies_in_the_run_folder(runs, report):
    assert report == runs[0] / "report.html"
    assert {path.name for path in runs[0].iterdir()} == {
        "config.toml",
        "events.jsonl",
        "report.html",
    }
    assert stat.S_IMODE(report.stat().st_mode) == stat.S_IMODE(
        (runs[0] / "events.jsonl").stat().st_mode
    )


def test_the_headline_figures_are_those_of_the_end_events(runs, report):
    end = search_events()[-1]
    share = round(100 * end["macs"] / 41_230_592, 1)
    seconds = round(end["train_seconds"])
    seen = text_of(report)
    assert "Accuracy on test 97.3 % dense 97.8 %, -0.5 points" in seen
    assert f"MACs left {share} %" in seen
    assert "Speed at batch 1 1.42x 2.14 ms → 1.51 ms at batch 1; 2.37x at batch 64" in seen
    assert f"Training time {seconds // 60} min {seconds % 60} s" in seen
    assert f"{round(100 * end['train_seconds'] / 84)} % of the dense run's 1 min 24 s" in seen


def test_removed_layers_are_named_with_their_epoch(report):
    # The synthetic run drops them at 45 % and 60 % of 24 epochs; removals come every 0.8 epochs.
    assert (
        "2 of 9 removable layers went: layer2.1 at epoch 11.2 and layer3.2 at epoch 14.4."
        in text_of(report)
    )
    assert report.read_text().count('class="layer removed"') == 2
    assert report.read_text().count('class="layer kept"') == 7
    stages = re.findall(r'stage-name">(.*?)<', report.read_text())
    assert stages == ["layer1", "layer2", "layer3"]
    assert re.findall(r'class="layer \w+"[^>]*>(.*?)<', report.read_text()) == ["0", "1", "2"] * 3


def test_every_removal_is_a_line_of_the_table(report):
    removals = sum(event["event"] == "remove" for event in search_events())
    (table,) = re.findall(r"<tbody>(.*?)</tbody>", report.read_text(), flags=re.DOTALL)
    assert table.count("<tr>") == removals > 5


def test_every_plot_named_on_the_page_has_a_figure(report):
    places = re.findall(r'data-figure="([^"]*)"', report.read_text())
    assert sorted(places) == sorted(figures_of(report))
    names = {name.rsplit("-", 1)[0] for name in places}
    assert names == {"over-time", "widths", "layers", "worth", "latency", "training-cost", "theta"}
    assert sum(name.startswith("theta") for name in places) == 12  # families


def test_plotly_knows_every_attribute_of_every_figure(report):
    """Oracle: plotly's own schema, which refuses unknown or malformed attributes."""
    for figure in figures_of(report).values():
        coloured = json.loads(re.sub(r'"--[a-z-]+"', '"#123456"', json.dumps(figure)))
        plotly.graph_objects.Figure(coloured)


def test_every_colour_role_of_the_figures_is_in_both_schemes(report):
    page = report.read_text()
    roles = set(re.findall(r'"(--[a-z-]+)"', json.dumps(figures_of(report))))
    roles |= set(re.findall(r"--mark: var\((--[a-z-]+)\)", page))
    light, dark = page.split("@media (prefers-color-scheme: dark)")[:2]
    assert {"--found", "--dense", "--removed"} <= roles
    assert [role for role in roles if f"{role}:" not in light] == []
    assert [role for role in roles if f"{role}:" not in dark.split("* {")[0]] == []


def test_the_figures_carry_the_numbers_of_the_events(report):
    figures = figures_of(report)
    end = search_events()[-1]
    before, after = figures["widths-0"]["data"]
    # 64 units are the longest bar.
    assert before["x"] == [width / 64 for width, _ in end["widths"].values()]
    assert after["x"] == [width / 64 for _, width in end["widths"].values()]
    accuracies = [e["validation_accuracy"] for e in search_events() if e["event"] == "epoch"]
    (found,) = [t for t in figures["over-time-0"]["data"] if t["name"] == "found"]
    assert found["y"] == accuracies
    assert found["x"] == [float(epoch) for epoch in range(1, 25)]
    assert found["line"]["color"] == "--found"


def test_the_curves_of_the_search_are_those_of_the_events(report):
    figures = figures_of(report)
    events = search_events()
    steps = [event for event in events if event["event"] == "step" and event["theta"]]
    (median,) = [trace for trace in figures["theta-1"]["data"] if trace["name"] == "median"]
    assert median["y"] == [step["theta"]["layer1.0.conv1"][2] for step in steps]
    phi = {trace["name"]: trace["y"] for trace in figures["layers-0"]["data"]}
    assert phi["layer2.1"] == [s["phi"]["layer2.1"] for s in steps if "layer2.1" in s["phi"]]
    removals = [event for event in events if event["event"] == "remove"]
    of_units, of_layers = figures["worth-0"]["data"]
    assert sorted(of_units["y"]) == sorted(e["worth"][n] for e in removals for n in e["units"])
    assert of_layers["y"] == [e["worth"][n] for e in removals for n in e["layers"]]


def test_latency_bars_are_shares_of_the_time_before(report):
    before, after = figures_of(report)["latency-0"]["data"]
    assert before["x"] == [1.0, 1.0]
    assert after["x"] == pytest.approx([0.00151 / 0.00214, 0.0174 / 0.0412], rel=1e-12)


def test_the_cost_of_training_stands_beside_that_of_the_dense_run(report):
    dense, found = figures_of(report)["training-cost-0"]["data"]
    assert (dense["name"], found["name"]) == ("dense", "this run")
    spent = [e["training_macs"] for e in dense_events() if e["event"] == "epoch"]
    assert dense["y"] == [0.0, *spent]
    own = [e["training_macs"] for e in search_events() if e["event"] == "epoch"]
    assert found["y"] == [0.0, *own]
    end, dense_end = search_events()[-1], dense_events()[-1]
    macs = round(100 * end["training_macs"] / dense_end["training_macs"])
    seconds = round(100 * end["train_seconds"] / dense_end["train_seconds"])
    sentence = f"This run took {macs} % of the MACs and {seconds} % of the time of the dense run."
    assert sentence in text_of(report)


def test_families_of_very_different_widths_are_each_drawn_to_their_own_scale(tmp_path):
    families = [{"name": "narrow", "units": 4}, {"name": "wide", "units": 97}]
    events = [start(families=families), {"event": "settle", "step": 1, "kept_units": {"narrow": 1}}]
    path = write_report(write_run(tmp_path, events))
    before, after = figures_of(path)["widths-0"]["data"]
    assert (before["x"], after["x"]) == ([1.0, 1.0], [0.25, 1.0])
    assert "Each bar has its own scale" in text_of(path)


def test_the_page_is_self_contained(report):
    page = report.read_text()
    own = re.sub(r"<script>\s*/\*\*\s*\* plotly.js.*?</script>", "", page, flags=re.DOTALL)
    assert len(own) < 500_000 < len(page)  # plotly is in, once
    assert page.count("* plotly.js v") == 1
    assert not re.search(r"\b(src|href)=|url\(|@import|https?://", own)
    assert "default-src 'none'" in own


def test_the_same_run_gives_the_same_page(tmp_path, report):
    found = write_run(tmp_path / "found", search_events())
    dense = write_run(tmp_path / "dense", dense_events())
    assert write_report(found, baseline=dense).read_bytes() == report.read_bytes()


def test_a_run_without_baseline_says_so_and_draws_its_own_curves(tmp_path):
    path = write_report(write_run(tmp_path, search_events()))
    assert "No dense run was given to compare with." in text_of(path)
    assert "no dense run to compare with" in text_of(path)
    assert [t["name"] for t in figures_of(path)["training-cost-0"]["data"]] == ["this run"]


def test_an_interrupted_run_says_how_far_it_came(tmp_path):
    events = [event for event in search_events() if event["step"] < 700]
    folder = write_run(tmp_path, events)
    with (folder / "events.jsonl").open("a") as file:
        file.write('{"event": "ep')
    seen = text_of(write_report(folder))
    assert "or is still going. What follows is its state at step 696 of 1,200." in seen
    assert "The last line of its events is cut off" in seen
    assert "Latency is measured at the end of a run, which this one has not reached." in seen
    assert "are left so far" in seen
    assert "Accuracy on validation" in seen


def test_a_run_that_has_only_started_has_a_page(tmp_path):
    path = write_report(write_run(tmp_path, [start()]))
    seen = text_of(path)
    for sentence in (
        "The run recorded no theta, so there are no trajectories to show.",
        "Nothing was removed, so there is no worth to compare with a price.",
        "The run recorded no finished epoch, so the cost of training is not known.",
        "All 9 removable layers stayed.",
    ):
        assert sentence in seen
    assert f"Training time {_text.UNKNOWN} no finished epoch" in seen


def test_a_start_that_says_nothing_has_a_page(tmp_path):
    seen = text_of(write_report(write_run(tmp_path / "mine", [{"event": "start", "step": 0}])))
    assert "neither an accuracy nor a size" in seen
    assert "nothing was up for removal" in seen
    assert seen.startswith(" mine · secateur")


def test_a_dense_run_has_a_page_of_its_own(runs):
    seen = text_of(write_report(runs[1]))
    assert "This run trained a network as it is: no family of units was up for removal." in seen
    assert "Accuracy on test 97.8 %" in seen


def test_price_over_time_is_shown_in_budget_mode_only(tmp_path, report):
    assert "Price over time" not in text_of(report)
    method = {"name": "complexity-aware", "settings": {"price": None, "target_macs": 0.4}}
    path = write_report(write_run(tmp_path, search_events(method=method)))
    assert "The budget was 40 % of the MACs; the price followed it." in text_of(path)
    (trace,) = figures_of(path)["price-0"]["data"]
    assert trace["y"] == [e["price"] for e in search_events(method=method) if e["event"] == "step"]


def test_names_given_by_the_user_are_text_and_nothing_else(tmp_path, report):
    families = [{"name": HOSTILE, "kind": HOSTILE, "units": 4}]
    events = [
        start(
            model=HOSTILE,
            data=HOSTILE,
            families=families,
            layers=[HOSTILE],
            versions={HOSTILE: HOSTILE},
        ),
        {"event": "step", "step": 1, "theta": {HOSTILE: [0, 0, 0, 1, 1, 4]}, "phi": {HOSTILE: 0.5}},
        {"event": HOSTILE, "step": 1},
        {
            "event": "remove",
            "step": 2,
            "units": {HOSTILE: [1]},
            "layers": [HOSTILE],
            "worth": {HOSTILE: 0.5},
            "macs": 1e6,
        },
        {"event": "epoch", "step": 3, "validation_accuracy": 0.5},
    ]
    path = write_report(write_run(tmp_path, events, config=HOSTILE))
    page = path.read_text()
    assert scripts_of(path) == scripts_of(report)
    assert "<img" not in re.sub(
        r"<script>\s*/\*\*\s*\* plotly.js.*?</script>", "", page, flags=re.DOTALL
    )
    assert HOSTILE in text_of(path)
    # In plotly's texts, which know some tags, the name is written with entities.
    assert "<b>" not in json.dumps(figures_of(path)["layers-0"])
    assert "<b>" not in json.dumps(figures_of(path)["widths-0"])


def test_a_loss_that_exploded_leaves_a_page_that_browsers_can_read(tmp_path):
    events = search_events()
    for event in events:
        if event["event"] == "step":
            event |= {"loss": math.nan, "price": math.inf, "expected_macs_share": math.nan}
            event["phi"] = dict.fromkeys(event["phi"], math.nan)
        if event["event"] == "remove":
            event["worth"] = dict.fromkeys(event["worth"], math.nan)
    path = write_report(write_run(tmp_path, events))

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    (data,) = re.findall(r'id="figures">(.*?)</script>', path.read_text())
    json.loads(data, parse_constant=refuse)


def test_a_number_that_is_not_finite_never_reaches_the_page():
    template = templates().from_string("{{ figures | tojson }}")
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        template.render(figures=[math.nan])


def test_what_the_run_itself_had_to_say_is_on_the_page_once(tmp_path):
    notice = {"event": "notice", "step": 5, "message": "Losses are <not> measured."}
    folder = write_run(tmp_path, [*search_events(), notice, notice])
    path = write_report(folder)
    assert text_of(path).count("Losses are <not> measured.") == 1
    assert "does not know" not in text_of(path)


def test_a_dense_run_of_another_job_is_pointed_out(tmp_path):
    found = write_run(tmp_path / "found", search_events())
    other = write_run(tmp_path / "other", dense_events(model="vgg16"))
    assert "Mind that the dense run trained vgg16 on digits." in text_of(
        write_report(found, baseline=other)
    )


def test_a_damaged_run_leaves_the_last_report_as_it_was(tmp_path):
    folder = write_run(tmp_path, search_events())
    path = write_report(folder)
    before = path.read_bytes()
    (folder / "events.jsonl").write_text("{}\n")
    with pytest.raises(StorageError, match=r"events.jsonl, line 1 has a wrong field 'event'"):
        write_report(folder)
    assert path.read_bytes() == before


def test_a_page_that_cannot_be_written_leaves_nothing_half_done(tmp_path, monkeypatch):
    folder = write_run(tmp_path, search_events())
    (folder / "report.html").mkdir()
    with pytest.raises(StorageError, match=r"report.html cannot be written .* free some space"):
        write_report(folder)
    assert {path.name for path in folder.iterdir()} == {
        "config.toml",
        "events.jsonl",
        "report.html",
    }


def test_a_run_without_config_says_so(tmp_path):
    folder = write_run(tmp_path, search_events())
    (folder / "config.toml").unlink()
    assert "The run folder holds no config.toml." in text_of(write_report(folder))


def test_the_sections_are_in_the_order_a_reader_needs():
    names = [section.__name__ for section in _page.SECTIONS]
    assert names[:4] == ["accuracy_and_macs", "price", "widths", "layers"]
