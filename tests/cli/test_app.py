"""The program: its help, its version, and how it ends when something goes wrong."""

import os
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import secateur
from secateur.cli import app
from secateur.errors import UsageError
from secateur.training.trainer import InterruptedRunError

COMMANDS = ("compare", "demo", "export", "prune", "report", "trace", "train")


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_version_is_said():
    result = run("--version")
    assert (result.exit_code, result.output) == (0, f"secateur {secateur.__version__}\n")


def test_every_command_and_every_option_has_a_help():
    commands = get_command(app).commands
    assert sorted(commands) == list(COMMANDS)
    for name, command in commands.items():
        assert command.help, name
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{name} {parameter.name}"


def test_no_command_is_described_by_half_a_sentence():
    listed = run("--help").output.partition("Commands:")[2]
    assert len(listed.strip().splitlines()) == len(COMMANDS)
    assert "..." not in listed


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_shown(command):
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"{command} [OPTIONS]" in result.output


def test_without_a_command_the_help_is_shown():
    assert "Commands:" in run().output


@pytest.fixture
def failing(monkeypatch):
    """Make a command fail with an error."""

    def fail_with(error):
        def fail(*args, **kwargs):
            raise error

        monkeypatch.setattr("secateur.cli._report.write_report", fail)

    return fail_with


def test_an_error_is_one_sentence_without_traceback(failing):
    failing(UsageError("The thing [red]was[/red] wrong. Type [bold] another."))
    result = run("report", "run")
    assert result.exit_code == 2
    assert result.stderr == "Error: The thing [red]was[/red] wrong. Type [bold] another.\n"
    assert result.stdout == ""


def test_debug_shows_where_it_came_from(failing):
    failing(UsageError("wrong"))
    assert isinstance(run("--debug", "report", "run").exception, UsageError)


def test_an_error_of_our_own_is_not_hidden(failing):
    failing(AssertionError("impossible"))
    assert isinstance(run("report", "run").exception, AssertionError)


def test_a_stopped_run_says_how_to_go_on(failing):
    failing(InterruptedRunError("runs/a"))
    result = run("report", "run")
    assert result.exit_code == 130
    assert "Stopped. Go on with: secateur train --resume runs/a\n" in result.stderr


def test_ctrl_c_elsewhere_ends_quietly(failing):
    failing(KeyboardInterrupt())
    result = run("report", "run")
    assert (result.exit_code, result.stderr) == (130, "\nStopped.\n")


@pytest.mark.slow
def test_the_module_is_the_program():
    result = subprocess.run(
        [sys.executable, "-m", "secateur", "report", "no such run"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("Error: ")
