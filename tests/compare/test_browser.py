"""The page of a comparison in a browser."""

import re

import pytest

from secateur.compare._page import render
from tests.compare.test_page import HOSTILE, results
from tests.compare.tiny import made_up, made_up_comparison
from tests.report.test_browser import CHROMIUM, DARK, LIGHT, attributes, load

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH"
    ),
]


@pytest.fixture
def path(tmp_path):
    """Two seeds and two budgets, under a name that tries to break out."""
    methods = {HOSTILE: {"recipe": "prune", "score": "magnitude"}}
    found = {}
    for (name, budget, _), result in results().items():
        method = HOSTILE if name == "magnitude" else name
        for seed in (0, 1):
            found[method, budget, seed] = result
    found["narrowed", 0.25, 0] = made_up(0.8, 250.0)
    comparison = made_up_comparison(found, methods=methods, seeds=[0, 1], budgets=[0.5, 0.25])
    path = tmp_path / "comparison.html"
    path.write_text(render(comparison, name=HOSTILE, config=HOSTILE))
    return path


def test_every_plot_renders_without_a_word_on_the_console(path, tmp_path):
    places = re.findall(r'data-figure="([^"]*)"', path.read_text())
    assert len(places) == 1 + 2 + 1 + 2  # size, a ranking a budget, one batch size, the bill
    page, console = load(path, tmp_path)
    assert attributes(page) == {"drawn": str(len(places)), "done": "yes"}
    assert console == []
    for name in places:
        (plot,) = re.findall(
            rf'data-figure="{name}".*?(?=data-figure=|</section>)', page, re.DOTALL
        )
        assert re.search(r'class="(point|points)"[^>]*>', plot), name
    assert 'id="trouble" hidden' in page


def test_the_plots_follow_the_dark_scheme(path, tmp_path):
    light, _ = load(path, tmp_path, LIGHT)
    dark, console = load(path, tmp_path, DARK)
    assert console == []
    assert "rgb(15, 118, 110)" in light
    assert "rgb(15, 118, 110)" not in dark
    assert "rgb(69, 196, 179)" in dark
