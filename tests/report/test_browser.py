import html
import json
import re
import shutil
import subprocess

import pytest

from secateur.report import write_report
from tests.report.synthetic_runs import dense_events, search_events, write_run

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium, chromium-browser or google-chrome on PATH"
    ),
]
DARK, LIGHT = 0, 1
NAME = "</script><img src=x onerror=console.error(1)> & %{y} <b>"


def load(path, folder, scheme=LIGHT):
    """Load a page in a browser; returns the page once its scripts are done, and the log."""
    command = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={folder / 'profile'}",
        f"--blink-settings=preferredColorScheme={scheme}",
        "--window-size=1300,2000",
        "--virtual-time-budget=60000",
        "--enable-logging=stderr",
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return done.stdout, console


def attributes(page):
    (tag,) = re.findall(r"<html[^>]*>", page)
    return {name: html.unescape(value) for name, value in re.findall(r'data-(\w+)="([^"]*)"', tag)}


@pytest.fixture
def report(tmp_path):
    """A run in budget mode, which has every plot there is, under a name that tries to break out."""
    method = {"name": "complexity-aware", "settings": {"price": None, "target_macs": 0.4}}
    found = write_run(tmp_path / "found", search_events(method=method, model=NAME))
    dense = write_run(tmp_path / "dense", dense_events())
    return write_report(found, baseline=dense)


def test_every_plot_renders_in_a_browser_without_a_word_on_the_console(report, tmp_path):
    places = re.findall(r'data-figure="([^"]*)"', report.read_text())
    page, console = load(report, tmp_path)
    assert attributes(page) == {"drawn": str(len(places)), "done": "yes"}
    assert console == []
    for name in places:
        (plot,) = re.findall(
            rf'data-figure="{name}".*?(?=data-figure=|</section>)', page, re.DOTALL
        )
        assert 'class="main-svg"' in plot, name
        # A plot that is drawn shows marks, not only its axes.
        assert re.search(
            r'class="(js-line|point|points|js-fill)"[^>]*>|<path class="js-line"', plot
        ), name
    assert 'id="trouble" hidden' in page


def test_the_plots_follow_the_dark_scheme(report, tmp_path):
    light, _ = load(report, tmp_path, LIGHT)
    dark, console = load(report, tmp_path, DARK)
    assert console == []
    assert "rgb(15, 118, 110)" in light
    assert "rgb(69, 196, 179)" not in light
    assert "rgb(69, 196, 179)" in dark
    assert "rgb(15, 118, 110)" not in dark


def test_a_plot_that_fails_is_told_on_the_page_and_the_others_are_drawn(report, tmp_path):
    """The check above can fail: a figure that is no figure is found out."""
    page = report.read_text()
    (data,) = re.findall(r'id="figures">(.*?)</script>', page)
    figures = json.loads(data)
    figures["widths-0"] = None
    broken = tmp_path / "broken.html"
    broken.write_text(page.replace(data, json.dumps(figures).replace("<", "\\u003c")))
    seen, _ = load(broken, tmp_path)
    assert len(json.loads(attributes(seen)["errors"])) >= 1
    assert attributes(seen)["drawn"] == str(len(figures) - 1)
    assert "hidden" not in re.search(r'<p class="note" id="trouble"[^>]*>', seen)[0]
