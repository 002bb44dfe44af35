"""`secateur demo`: one network trained twice, as it is and with structure discovery."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from secateur.cli._outcome_table import comparison_table
from secateur.cli._run_progress import RunProgress
from secateur.cli._screen import error_screen, screen
from secateur.training import trainer

PRICE = 0.5
EPOCHS = 24


def demo(
    seed: Annotated[
        int, typer.Option(help="Start of every random generator, the same for both.", min=0)
    ] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of both runs.", show_default="runs/demo-TIMESTAMP")
    ] = None,
) -> None:
    """Train a network on digits as it is, and finding its own size."""
    folder = out or Path("runs") / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    dense = trainer.create_run(demo_config(seed, price=None), folder / "dense")
    found = trainer.create_run(demo_config(seed, price=PRICE), folder / "found")
    with RunProgress(error_screen()) as progress:
        before = trainer.train(dense, on_progress=progress.run("dense"))
        after = trainer.train(found, on_progress=progress.run("found"), baseline=dense)
    screen().print(comparison_table(before, after))
    screen().print(f"Report: {after.report}", soft_wrap=True)


def demo_config(seed: int, price: float | None) -> trainer.Config:
    """Return the settings of a run of the demo.

    Args:
        seed: Start of every random generator.
        price: Nats per 100 % of complexity; None trains the network as it is.

    Returns:
        The settings; with and without a price they differ in nothing else.
    """
    return trainer.Config(
        name="demo",
        model=trainer.ModelConfig(name="digits-resnet"),
        data=trainer.DataConfig(name="digits"),
        training=trainer.TrainingConfig(
            epochs=EPOCHS,
            batch_size=64,
            warmup_epochs=2.0,
            device="cpu",
            threads=1,  # more of them only wait for each other in so small a network
            seed=seed,
        ),
        search=None if price is None else trainer.SearchConfig(price=price),
    )
