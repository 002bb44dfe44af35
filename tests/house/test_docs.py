"""The README and the pages in docs/ say what is so."""

import ast
import re
import shlex

import torch

import secateur
from tests.clean_room import ROOT

README = ROOT / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)")


def name(page):
    return str(page.relative_to(ROOT))


def blocks(language):
    """Every (page, text) of a fenced block in that language."""
    return [
        (page, text)
        for page in PAGES
        for found, text in FENCE.findall(page.read_text(encoding="utf-8"))
        if found == language
    ]


def commands(program):
    """First argument of every call of a program in a shell block."""
    lines = [(page, line) for page, text in blocks("sh") for line in text.splitlines()]
    words = [(page, shlex.split(line, comments=True)) for page, line in lines]
    return {(name(page), word[1]) for page, word in words if len(word) > 1 and word[0] == program}


def test_every_make_command_in_the_pages_is_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", makefile, re.MULTILINE))
    shown = commands("make")
    assert ("README.md", "demo") in shown
    assert ("README.md", "test") in shown
    assert {(page, target) for page, target in shown if target not in targets} == set()


def test_every_secateur_command_in_the_pages_exists():
    from typer.main import get_command

    from secateur.cli import app

    known = set(get_command(app).commands)
    inline = {
        (name(page), word)
        for page in PAGES
        for word in re.findall(r"`secateur (\w+)", page.read_text(encoding="utf-8"))
    }
    shown = inline | commands("secateur")
    assert ("README.md", "demo") in shown
    assert {(page, word) for page, word in shown if word not in known} == set()


def test_every_name_of_secateur_in_the_python_blocks_is_public():
    used = {
        node.attr
        for _, text in blocks("python")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "secateur"
    }
    assert "attach" in used
    assert used - set(secateur.__all__) == set()


def test_every_local_link_leads_somewhere():
    dead = [
        (name(page), link)
        for page in PAGES
        for link in LINK.findall(page.read_text(encoding="utf-8"))
        if "://" not in link and not (page.parent / link).exists()
    ]
    assert dead == []


def test_the_first_screen_of_the_readme_shows_the_picture_the_commands_and_the_code():
    first = README.read_text(encoding="utf-8").splitlines()[:40]
    assert any(line.startswith("![") for line in first)
    assert {"make demo", "make test"} <= {line.split("#")[0].strip() for line in first}
    assert any("secateur.attach(" in line for line in first)


def test_the_loop_in_the_readme_runs(tmp_path, monkeypatch, capsys):
    """The first Python block of the README, with a tiny network in the places it leaves open."""
    monkeypatch.chdir(tmp_path)

    def build_model():
        return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))

    model = build_model()
    steps = 20
    inputs = torch.randn(steps, 16, 6)
    names = {
        "F": torch.nn.functional,
        "build_model": build_model,
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "example_inputs": inputs[0],
        "loader": [(batch, batch[:, :3].argmax(dim=1)) for batch in inputs],
        "steps": steps,
    }
    code = next(text for page, text in blocks("python") if page == README)
    exec(compile(code, "README.md", "exec"), names)

    assert names["model"] is not model
    model.eval()
    loaded = names["model"].eval()
    torch.testing.assert_close(loaded(inputs[0]), model(inputs[0]), rtol=0, atol=0)
    assert capsys.readouterr().out.strip()


def test_the_changelog_has_a_place_for_the_next_change():
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
