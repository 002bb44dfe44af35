import re
import xml.etree.ElementTree as ET

import pytest

from secateur.errors import UsageError
from secateur.report import _text, write_picture
from tests.report.synthetic_runs import dense_events, search_events, start, write_run

SVG = "{http://www.w3.org/2000/svg}"


def texts(path):
    return [
        (element.text or "").replace(_text.NBSP, " ")
        for element in ET.parse(path).iter(f"{SVG}text")
    ]


def test_the_picture_is_an_svg_with_the_figures_of_the_run(tmp_path):
    found = write_run(tmp_path / "found", search_events())
    dense = write_run(tmp_path / "dense", dense_events())
    path = write_picture(found, tmp_path / "picture.svg", baseline=dense)
    seen = texts(path)
    end = search_events()[-1]
    assert seen[:2] == ["97.3 %", "accuracy on test (dense 97.8 %)"]
    assert f"{100 * end['macs'] / 41_230_592:.0f} %" in seen
    assert f"{end['widths']['layer3.1.conv1'][1]} of 64" in seen
    assert "2 of 9 layers removed" in seen
    assert path.stat().st_size < 20_000


def test_bars_and_curves_stand_where_hand_arithmetic_puts_them(tmp_path):
    events = [
        start(
            families=[{"name": "a", "units": 10}, {"name": "b", "units": 5}], macs=100, layers=[]
        ),
        {"event": "remove", "step": 50, "units": {"a": [0, 1, 2, 3]}, "macs": 50},
        {"event": "epoch", "step": 100, "validation_accuracy": 0.9},
    ]
    tree = ET.parse(write_picture(write_run(tmp_path, events), tmp_path / "p.svg"))
    widths = [float(e.get("width")) for e in tree.iter(f"{SVG}rect") if e.get("x") == "700.0"]
    # 158 pixels are the widest family: 10 units before, 6 after; 5 before, 5 after.
    assert widths == [158.0, 94.8, 79.0, 79.0]
    *_, macs = [e.get("d") for e in tree.iter(f"{SVG}path") if "found" in e.get("class")]
    # From 100 % (y 322) to 50 % (y 363) at half of the time (x 84 + 446 / 2), to the end (x 530).
    assert macs == "M84 322 L307 322 L307 363 L530 363"


def test_the_picture_has_its_own_ground_in_light_and_dark(tmp_path):
    path = write_picture(write_run(tmp_path, search_events()), tmp_path / "p.svg")
    light, dark = re.findall(r"\.card \{ fill: (#[0-9a-f]{6})", path.read_text())
    assert light == "#ffffff"
    assert int(dark[1:3], 16) < 0x30
    assert "prefers-color-scheme: dark" in path.read_text()


def test_a_hostile_name_is_text_in_the_picture(tmp_path):
    name = '"/></svg><script>alert(1)</script>'
    path = write_picture(write_run(tmp_path, search_events(model=name)), tmp_path / "p.svg")
    assert not list(ET.parse(path).iter(f"{SVG}script"))
    assert any("<script>" in text for text in texts(path))


def test_many_families_are_drawn_without_their_names(tmp_path):
    families = [{"name": f"features.{i}", "kind": "channels", "units": 64} for i in range(54)]
    events = [start(families=families), *search_events()[1:-1]]
    seen = texts(write_picture(write_run(tmp_path, events), tmp_path / "p.svg"))
    assert "features.3" not in seen


def test_another_format_is_refused_with_the_cure(tmp_path):
    folder = write_run(tmp_path, search_events())
    message = "asked for as 'p.png'. Pictures are written as SVG; give a path that ends in .svg."
    with pytest.raises(UsageError, match=re.escape(message)):
        write_picture(folder, tmp_path / "p.png")


def test_a_run_without_steps_has_no_picture_yet(tmp_path):
    with pytest.raises(UsageError, match="has recorded no MACs after its first step"):
        write_picture(write_run(tmp_path, [start()]), tmp_path / "p.svg")
