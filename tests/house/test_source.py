"""Rules for the source that no linter knows."""

import ast
import re
from pathlib import Path

import pytest

from tests.clean_room import ROOT

SOURCES = sorted((ROOT / "src").rglob("*.py"))
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".j2", ".html", ".css", ".js", ".json", ""}
MAX_LINES = 400


def name(path):
    return str(path.relative_to(ROOT))


def texts():
    """Every text file that belongs to the project, wherever it was cloned."""
    places = ["src", "tests", "docs", "benchmarks", "examples", ".ci"]
    files = [path for place in places for path in (ROOT / place).rglob("*")]
    files += [*ROOT.glob("*.*"), ROOT / "Makefile", ROOT / "LICENSE"]
    return sorted(
        path
        for path in files
        if path.is_file() and path.suffix in TEXT_SUFFIXES and "__pycache__" not in path.parts
    )


def split_messages(source):
    """Line numbers of ``raise Error("one half", "other half")``: the message becomes a tuple."""

    def is_text(node):
        if isinstance(node, ast.BinOp):
            return is_text(node.left) or is_text(node.right)
        return isinstance(node, ast.JoinedStr) or (
            isinstance(node, ast.Constant) and isinstance(node.value, str)
        )

    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and sum(is_text(argument) for argument in node.exc.args) > 1
    ]


def test_there_is_source_to_check():
    assert ROOT / "src/secateur/errors.py" in SOURCES
    assert ROOT / "README.md" in texts()


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_source_file_stays_short_enough_to_read(path):
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= MAX_LINES, f"{name(path)} has {num_lines} lines; split it by concept."


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_no_message_is_split_by_a_comma(path):
    assert split_messages(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('raise ValueError("a", "b")', [1]),
        ('x = 1\nraise ValueError(f"a {x}", "b")', [2]),
        ('raise ValueError("a" + x, "b")', [1]),
        ('raise ValueError("a" "b")', []),
        ('raise KeyError("a", 3)', []),
        ("raise", []),
    ],
)
def test_the_check_for_split_messages_sees_them(source, lines):
    assert split_messages(source) == lines


def machine_paths(text):
    """Lines that name a folder of somebody's machine."""
    # Written in pieces, so that this file is clean as well.
    folders = "|".join(["ho" + "me", "ro" + "ot", "wo" + "rk", "Us" + "ers"])
    pattern = re.compile(rf"(?<![\w.)\]])/({folders})/\w")
    return [line.strip() for line in text.splitlines() if pattern.search(line)]


@pytest.mark.parametrize("path", texts(), ids=name)
def test_no_path_of_a_machine_is_in_the_repository(path):
    assert machine_paths(path.read_text(encoding="utf-8")) == []


def test_the_check_for_machine_paths_sees_them():
    line = f"data = '{Path('/') / 'home' / 'ada' / 'data'}'"
    assert machine_paths(f"first\n{line}\nsee docs/home/page and a{Path('/') / 'work' / 'b'}") == [
        line
    ]
