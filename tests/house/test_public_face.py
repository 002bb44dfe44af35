"""What a user can import is what is listed, what is documented, and what was decided."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

import secateur
from tests.clean_room import ROOT

GOLDEN = ROOT / "tests/golden/public_face.txt"
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGES = sorted(
    module.name
    for module in pkgutil.walk_packages(secateur.__path__, "secateur.")
    if module.ispkg and not any(part.startswith("_") for part in module.name.split("."))
)


def public_names(module):
    """Names without underscore that a module holds, submodules and dunder-future aside."""
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, types.ModuleType)
        and name != "annotations"
    )


def parameters(thing):
    """One line a parameter: what a caller may write, and what holds if nothing is written."""
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return []
    return [
        f"    {str(parameter).split(':', maxsplit=1)[0].split('=')[0].strip()}{default(parameter)}"
        for parameter in signature.parameters.values()
    ]


def default(parameter):
    if parameter.default is inspect.Parameter.empty:
        return ""
    if isinstance(parameter.default, (int, float, str, bool, tuple, type(None))):
        return f" = {parameter.default!r}"
    return f" = <{type(parameter.default).__name__}>"


def python_face():
    lines = []
    for name in sorted(secateur.__all__):
        thing = getattr(secateur, name)
        lines.append(f"secateur.{name}")
        lines += parameters(thing) if callable(thing) else []
    return lines


def command_face():
    """Every command with its arguments and options, as the command line sees them."""
    from typer.main import get_command

    from secateur.cli import app

    root = get_command(app)
    lines = []
    for name, command in sorted(root.commands.items()):
        lines.append(f"$ secateur {name}")
        lines += sorted(f"    {option(parameter)}" for parameter in command.params)
    return lines


def option(parameter):
    names = "/".join([*parameter.opts, *parameter.secondary_opts])
    return f"{names} ({'required' if parameter.required else 'optional'})"


def test_everything_exported_exists_once():
    """Their order is the linter's business (RUF022)."""
    for package in ["secateur", *PACKAGES]:
        module = importlib.import_module(package)
        assert len(set(module.__all__)) == len(module.__all__), package
        for name in module.__all__:
            assert hasattr(module, name), f"{package}.{name}"


def test_everything_importable_is_exported():
    for package in ["secateur", *PACKAGES]:
        module = importlib.import_module(package)
        extra = set(public_names(module)) - set(module.__all__)
        assert extra == set(), f"{package} exposes names that __all__ does not list"


def test_a_folder_re_exports_and_holds_no_logic():
    """An __init__ is a docstring, imports and __all__; logic has a file that says its name."""
    for package in ["secateur", *PACKAGES]:
        source = Path(importlib.import_module(package).__file__).read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            assert isinstance(node, (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign)), (
                f"{package}:{node.lineno}"
            )


@pytest.mark.parametrize("name", sorted(getattr(secateur, "__all__", ())))
def test_an_exported_name_is_documented(name):
    pages = [page.name for page in DOCS if f"secateur.{name}" in page.read_text(encoding="utf-8")]
    assert pages, f"secateur.{name} is in no page of docs/ and not in the README."
    assert name.startswith("__") or inspect.getdoc(getattr(secateur, name))


def test_the_public_face_only_grows_on_purpose(regen):
    """A new option or parameter is a decision: run pytest with --regen and review the diff."""
    face = "\n".join([*python_face(), "", *command_face(), ""])
    if regen:
        GOLDEN.write_text(face, encoding="utf-8")
    assert face == GOLDEN.read_text(encoding="utf-8")


def test_importing_secateur_loads_no_extra():
    """What only an extra installs is imported where it is used."""
    extras = ["torchvision", "timm", "PIL", "transformers", "onnx", "onnxruntime", "onnxscript"]
    code = f"import sys, secateur; print([m for m in {extras} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
