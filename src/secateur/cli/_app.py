"""The program `secateur`: its commands, and how it ends when something goes wrong."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from secateur._version import __version__
from secateur.cli._compare import compare
from secateur.cli._demo import demo
from secateur.cli._export import export
from secateur.cli._options import INTERRUPTED
from secateur.cli._prune import prune
from secateur.cli._report import report
from secateur.cli._screen import error_screen
from secateur.cli._trace import trace
from secateur.cli._train import train
from secateur.errors import SecateurError
from secateur.training.trainer import InterruptedRunError

MISTAKE = 2


class _Commands(TyperGroup):
    """Ends with one sentence, and no traceback, where secateur raised an error on purpose."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SecateurError as error:
            if ctx.params["debug"]:
                raise
            _say(f"Error: {error}", style="red")
            sys.exit(MISTAKE)
        except InterruptedRunError as stop:
            _say(f"\nStopped. Go on with: secateur train --resume {stop.run}")
            sys.exit(INTERRUPTED)
        except KeyboardInterrupt:
            _say("\nStopped.")
            sys.exit(INTERRUPTED)


app = typer.Typer(
    cls=_Commands,
    name="secateur",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _say(text: str, style: str | None = None) -> None:
    # The terminal wraps: a command that is broken in two cannot be copied.
    error_screen().print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"secateur {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            is_eager=True,
            callback=_show_version,
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Networks that find their own size while they train."""


for _command in (demo, train, prune, compare, trace, report, export):
    app.command()(_command)
