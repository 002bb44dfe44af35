"""`secateur prune`: the network of a finished run, smaller by what scores lowest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from secateur.cli._screen import error_screen, screen
from secateur.data import Batches, Dataset
from secateur.methods import prune as prune_network
from secateur.methods.scores import SCORES
from secateur.report.kit import write_beside
from secateur.storage import save
from secateur.training import trainer

CONFIG = "train.toml"


def prune(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    target_macs: Annotated[
        float | None, typer.Option(help="MACs to keep, as a share of the network's, in (0, 1).")
    ] = None,
    target_params: Annotated[
        float | None,
        typer.Option(help="Parameters to keep, as a share of the network's, in (0, 1)."),
    ] = None,
    score: Annotated[
        str, typer.Option(help=f"What ranks the units: {', '.join(SCORES)}.")
    ] = "taylor",
    rounds: Annotated[
        int, typer.Option(min=1, help="Removals, with scores measured anew before each.")
    ] = 1,
    batches: Annotated[
        int, typer.Option(min=1, help="Batches of training images the score is measured on.")
    ] = 8,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write.", show_default="RUN/pruned")
    ] = None,
) -> None:
    """Prune the network of a finished run, without training."""
    config = trainer.open_run(run)
    folder = out or run / "pruned"
    with (
        error_screen().status(f"Pruning by {score}"),
        trainer.own_threads(config.training.threads),
        torch.random.fork_rng(devices=[]),
    ):
        network, images = trainer.load_network(run)
        network = trainer.place(network, config.training)
        dataset = trainer.load_data(config)
        device = next(network.parameters()).device
        before = _accuracy(network, dataset, config, device)
        pruned = prune_network(
            network,
            images[:1].to(device),
            score=score,
            target_macs=target_macs,
            target_params=target_params,
            data=trainer.training_sample(dataset, config.training, batches, device),
            loss=trainer.batch_loss,
            rounds=rounds,
            seed=config.training.seed,
        )
        after = _accuracy(network, dataset, config, device)
        save(network, folder)
        write_beside(folder / CONFIG, trainer.write_config(_training_on(config, folder)))
    shown = screen()
    shown.print(str(pruned), markup=False, highlight=False, soft_wrap=True)
    shown.print(f"Validation accuracy: {before:.2%} before, {after:.2%} after.", soft_wrap=True)
    shown.print(f"Saved: {folder}", soft_wrap=True)
    shown.print(f"Train it on with: secateur train {folder / CONFIG}", soft_wrap=True)


def _training_on(config: trainer.Config, folder: Path) -> trainer.Config:
    """Return the settings of the run, begun with the pruned network and without a search."""
    model = config.model.model_copy(update={"weights": str(folder.resolve())})
    return config.model_copy(update={"model": model, "search": None})


def _accuracy(
    network: nn.Module, dataset: Dataset, config: trainer.Config, device: torch.device
) -> float:
    batches = Batches(dataset, "validation", config.training.batch_size, device=device)
    return trainer.evaluate(network, batches).accuracy
