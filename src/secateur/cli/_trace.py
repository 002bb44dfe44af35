"""`secateur trace`: what a network is made of."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from secateur import models
from secateur.cli._screen import error_screen, screen
from secateur.errors import UsageError
from secateur.structure import trace as trace_model


def trace(
    model: Annotated[
        str,
        typer.Argument(
            help="A reference network, torchvision/NAME, timm/NAME, or MODULE:FUNCTION of your own "
            "that returns a network."
        ),
    ],
    example: Annotated[
        str | None,
        typer.Option(
            help="Shape of an example input.",
            show_default="1,3,32,32 for reference networks, else 1,3,224,224",
        ),
    ] = None,
    classes: Annotated[int, typer.Option(help="Number of classes.", min=1)] = 10,
    width: Annotated[
        float, typer.Option(help="Factor on the widths of a reference network.")
    ] = 1.0,
    allow_inexact: Annotated[
        bool,
        typer.Option(
            "--allow-inexact", help="Admit units that share a statistic, as under LayerNorm."
        ),
    ] = False,
    head_dims: Annotated[
        bool,
        typer.Option("--head-dims", help="Take positions inside heads as units, not heads."),
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Show what becomes of this parameter or buffer, and why, instead."
        ),
    ] = None,
) -> None:
    """Show what a network is made of, and what of it can go.

    That is: families of units, removable layers, MACs and parameters, and what is fixed and why.
    """
    is_reference = "/" not in model and ":" not in model
    shape = _shape(example or ("1,3,32,32" if is_reference else "1,3,224,224"))
    with error_screen().status(f"Tracing {model}"):
        network = _own(model) if ":" in model else _named(model, shape, classes, width)
        structure = trace_model(
            network, torch.zeros(shape), allow_inexact=allow_inexact, head_dims=head_dims
        )
    shown = structure if explain is None else structure.explain(explain)
    screen().print(str(shown), markup=False, highlight=False, soft_wrap=True)


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(size) for size in text.split(","))
    except ValueError:
        shape = ()
    if not shape or min(shape) < 1:
        raise UsageError(
            f"--example {text!r} is not the shape of an input. "
            "Give whole numbers with commas between them, such as 1,3,224,224."
        )
    return shape


def _named(name: str, shape: tuple[int, ...], classes: int, width: float) -> nn.Module:
    if len(shape) != 4:
        raise UsageError(
            f"--example has {len(shape)} numbers, but {name!r} takes images. "
            "Give batch, channels, height and width, such as 1,3,224,224."
        )
    return models.build(
        name, num_classes=classes, in_channels=shape[1], image_size=shape[2], width=width
    )


def _own(name: str) -> nn.Module:
    """Call a function that the user names; programs do not look in the working directory."""
    module_name, _, function = name.partition(":")
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        network = getattr(importlib.import_module(module_name), function)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(
            f"No network came from {name!r} ({type(error).__name__}: {error}). Name a module that "
            "Python can import and a function in it that takes no arguments."
        ) from error
    finally:
        sys.path.remove(folder)
    if not isinstance(network, nn.Module):
        raise UsageError(
            f"{name!r} returned a {type(network).__name__}, but a network is needed. "
            "Name a function that returns a torch.nn.Module."
        )
    return network
