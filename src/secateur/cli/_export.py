"""`secateur export`: the network of a finished run for other runtimes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from secateur import storage
from secateur.cli._screen import error_screen, screen
from secateur.training import trainer


class Target(StrEnum):
    """Formats that can be written."""

    ONNX = "onnx"
    PT2 = "pt2"


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    to: Annotated[
        Target, typer.Option(help="onnx, or pt2 for a torch.export archive.")
    ] = Target.ONNX,
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="RUN/model.onnx or .pt2")
    ] = None,
) -> None:
    """Export the network of a finished run for other runtimes.

    The file is run and compared with the network before it is kept.
    """
    with error_screen().status(f"Exporting to {to.value}"):
        model, images = trainer.load_network(run)
        path = storage.export(model, images, out or run / f"model.{to.value}", to=to.value)
    screen().print(f"Exported: {path}", soft_wrap=True)
