"""The page of a comparison: its numbers, its notes, and what may not get in."""

import html
import json
import re

import plotly
import pytest

from secateur.compare._page import render
from secateur.compare._styles import styles
from tests.compare.tiny import made_up, made_up_comparison

PRUNED = (("pre-training", 60.0, 6.0), ("pruning", 2.0, 0.5), ("fine-tuning", 18.0, 1.5))
HOSTILE = "</script><img src=x onerror=alert(1)> & %{y} <b>"


def results():
    return {
        ("dense", None, 0): made_up(0.96, 1000.0, (("training", 100.0, 10.0),), own=0.004),
        ("narrowed", 0.5, 0): made_up(0.93, 500.0, (("training", 50.0, 6.0),)),
        ("complexity-aware", 0.5, 0): made_up(0.95, 495.0, (("training", 70.0, 8.0),)),
        ("random", 0.5, 0): made_up(0.90, 500.0, PRUNED, own=0.003),
        ("magnitude", 0.5, 0): made_up(0.94, 500.0, PRUNED, own=0.001),
    }


def page(found=None, **changes):
    comparison = made_up_comparison(found or results(), **({"seeds": [0]} | changes))
    return render(comparison, name="mine", config="budgets = [0.5]")


def text_of(content):
    """The page without its scripts and tags, as a reader sees it."""
    content = re.sub(r"<(script|style).*?</\1>", "", content, flags=re.DOTALL)
    words = html.unescape(re.sub(r"<[^>]*>", " ", content))
    return re.sub(
        r"\s+",
        " ",
        words.replace("\N{NO-BREAK SPACE}", " ").replace("\N{MULTIPLICATION SIGN}", "x"),
    )


def figures_of(content):
    (data,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', content)
    return json.loads(data)


def test_the_summary_names_the_best_method_and_the_control():
    seen = text_of(page())
    assert (
        "At 50 % of the MACs complexity-aware reaches the highest accuracy, 95.00 %; the network "
        "narrowed to as many reaches 93.00 %. The full network reaches 96.00 %."
    ) in seen


def test_the_table_holds_the_figures():
    (body,) = re.findall(r"<tbody>(.*?)</tbody>", page(), flags=re.DOTALL)
    rows = [re.sub(r"\s+", " ", text_of(row)).split() for row in body.split("</tr>")[:-1]]
    assert [row[0] for row in rows] == [
        "dense",
        "narrowed",
        "random",
        "complexity-aware",
        "magnitude",
    ]
    assert " ".join(rows[4]) == "magnitude 50 % 1 94.00 % 50.0 % 40.0 % 4.00x 0.80 0.80"
    # Only what nothing beats in both is bold: 495 and 500 of 1000 MACs count as equal.
    assert re.findall(r"<b>(.*?)</b>", body) == [
        "96.00\N{NO-BREAK SPACE}%",
        "95.00\N{NO-BREAK SPACE}%",
    ]


def test_the_front_joins_the_points_nothing_beats():
    front = figures_of(page())["accuracy-0"]["data"][0]
    assert front["x"] == [49.5, 100.0]
    assert front["y"] == [95.0, 96.0]


def test_the_spread_is_drawn_where_there_are_seeds():
    more = {("magnitude", 0.5, 1): made_up(0.90, 500.0, PRUNED)}
    found = figures_of(page(results() | more, seeds=[0, 1]))["accuracy-0"]["data"]
    bars = {trace["name"]: trace["error_y"] for trace in found[1:]}
    assert bars["magnitude, 50\N{NO-BREAK SPACE}%"]["array"] == [pytest.approx(100 * 0.02 * 2**0.5)]
    assert not bars["dense"]["visible"]


def test_methods_of_a_budget_are_ranked():
    figure = figures_of(page())["budgets-0"]
    names = ["complexity-aware", "magnitude", "narrowed", "random"]
    assert figure["layout"]["yaxis"]["ticktext"] == names
    assert [trace["x"] for trace in figure["data"]] == [[95.0], [94.0], [93.0], [90.0]]
    assert figure["layout"]["shapes"][0]["x0"] == 96.0


def test_the_bars_of_the_bill_add_up():
    macs, seconds = figures_of(page())["bill-0"]["data"], figures_of(page())["bill-1"]["data"]
    assert [t.get("name") for t in macs[:-1]] == [
        "pre-training",
        "training",
        "pruning",
        "fine-tuning",
    ]
    for bars in (macs, seconds):
        total = [sum(parts) for parts in zip(*(t["x"] for t in bars[:-1]), strict=True)]
        assert total == pytest.approx(bars[-1]["x"])
    assert macs[-1]["x"] == pytest.approx([1, 0.5, 0.8, 0.7, 0.8])
    assert seconds[-1]["x"] == pytest.approx([1, 0.6, 0.8, 0.8, 0.8])


def test_what_makes_figures_hard_to_compare_is_said():
    seen = text_of(page())
    assert "One seed says nothing about chance" in seen
    assert "are finished" not in seen
    assert "more than one machine" not in seen
    other = made_up(0.9, 600.0, PRUNED, versions={"torch": "1.0"})
    found = results() | {("magnitude", 0.5, 0): other}
    del found["random", 0.5, 0]
    training = {"epochs": 4, "batch_size": 64}
    fine_tune = {"pretrain_epochs": 4, "epochs": 1}
    seen = text_of(page(found, training=training, fine_tune=fine_tune))
    assert "4 of 5 cells are finished" in seen
    assert "Mind the sizes: magnitude at 60.0 % instead of 50 %." in seen
    assert "The cells come from more than one machine or version" in seen
    assert "The methods were given different numbers of epochs, 4 to 5" in seen


def test_the_page_is_there_before_the_first_cell_is_finished():
    comparison = made_up_comparison({})
    seen = text_of(render(comparison, name="mine", config=""))
    assert "No cell is finished yet." in seen
    assert "0 of 5 cells are finished" in seen


def test_names_given_by_the_user_are_text_and_nothing_else():
    methods = {HOSTILE: {"recipe": "prune", "score": "magnitude"}}
    found = {
        (HOSTILE if name == "magnitude" else name, budget, seed): result
        for (name, budget, seed), result in results().items()
    }
    content = page(found, methods=methods)
    assert HOSTILE in text_of(content)
    assert len(re.findall(r"<script[\s>]", content)) == len(re.findall(r"<script[\s>]", page()))
    assert "<img" not in re.sub(
        r"<script>\s*/\*\*\s*\* plotly.js.*?</script>", "", content, flags=re.DOTALL
    )
    assert "<img" not in json.dumps(figures_of(content))


def test_plotly_knows_every_attribute_of_every_figure():
    """Oracle: plotly's own schema, which refuses unknown or malformed attributes."""
    for figure in figures_of(page()).values():
        coloured = json.loads(re.sub(r'"--[a-z-]+"', '"#123456"', json.dumps(figure)))
        plotly.graph_objects.Figure(coloured)


def test_every_plot_has_a_figure_and_every_colour_is_in_both_schemes():
    content = page()
    assert sorted(re.findall(r'data-figure="([^"]*)"', content)) == sorted(figures_of(content))
    roles = set(re.findall(r'"(--[a-z-]+)"', json.dumps(figures_of(content))))
    roles |= set(re.findall(r"--mark: var\((--[a-z-]+)\)", content))
    roles |= {f"--series-{letter}" for letter in "abcdef"}
    light, dark = content.split("@media (prefers-color-scheme: dark)")[:2]
    assert [role for role in roles if f"{role}:" not in light] == []
    assert [role for role in roles if f"{role}:" not in dark.split("* {")[0]] == []


def test_the_page_is_self_contained():
    content = page()
    own = re.sub(r"<script>\s*/\*\*\s*\* plotly.js.*?</script>", "", content, flags=re.DOTALL)
    assert len(own) < 500_000 < len(content)
    assert not re.search(r"\b(src|href)=|url\(|@import|https?://", own)


def test_no_two_of_thirty_methods_look_alike():
    found = styles(["dense", "narrowed", "random", "complexity-aware", *map(str, range(26))])
    assert len(set(found.values())) == 30
    assert all(style.mark for style in found.values())
