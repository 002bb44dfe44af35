"""The recipe ``prune``: train the full network, prune it by a score, train what is left."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import AfterValidator
from torch.utils.flop_counter import FlopCounterMode

from secateur.compare.recipes._bill import Bill, Item
from secateur.compare.recipes._job import Job, Made
from secateur.errors import StorageError
from secateur.methods import prune
from secateur.methods.scores import score_named
from secateur.report.kit import write_beside
from secateur.storage import save
from secateur.training import trainer

BILL = "pruning.json"


def _score_name(name: str) -> str:
    score_named(name)
    return name


class PruneRecipe(trainer.Section):
    """Prunes a pre-trained network to the budget with `secateur.prune`, then fine-tunes it.

    Attributes:
        recipe: The name.
        score: Name of the score.
        rounds: Removals, with scores measured anew before each.
        batches: Batches of training images, without augmentation, that the score is measured on.
    """

    recipe: Literal["prune"]
    score: Annotated[str, AfterValidator(_score_name)]
    rounds: trainer.Count = 1
    batches: trainer.Count = 8
    has_budget: ClassVar[bool] = True
    fine_tunes: ClassVar[bool] = True

    def carry_out(self, job: Job) -> Made:
        """Train, prune and fine-tune.

        Args:
            job: The cell.

        Returns:
            The network and the bill of all three.

        Raises:
            StorageError: What was kept of the pruning is damaged.
        """
        before = job.pretrain()
        folder = job.folder / "pruned"
        if not (folder / BILL).exists():
            job.on_run("pruning", trainer.Progress(phase="train"))
            self._prune(job, before.outcome.run, folder)
        pruning = _read_bill(folder / BILL)
        model = job.base.model.model_copy(update={"weights": str(folder.resolve())})
        config = job.base.model_copy(update={"model": model, "training": job.schedules.fine_tuning})
        after = job.train("fine-tuning", config)
        return Made(
            outcome=after.outcome, bill=Bill((*before.bill.items, pruning, *after.bill.items))
        )

    def _prune(self, job: Job, run: Path, folder: Path) -> None:
        training = job.base.training
        with trainer.own_threads(training.threads), torch.random.fork_rng(devices=[]):
            network, images = trainer.load_network(run)
            network = trainer.place(network, training)
            device = next(network.parameters()).device
            batches = trainer.training_sample(job.ground.dataset, training, self.batches, device)
            begun = time.perf_counter()
            with FlopCounterMode(display=False) as counter:
                prune(
                    network,
                    images[:1].to(device),
                    score=self.score,
                    target_macs=job.target,
                    data=batches,
                    loss=trainer.batch_loss,
                    rounds=self.rounds,
                    seed=training.seed,
                )
            seconds = time.perf_counter() - begun
        save(network, folder)
        macs = counter.get_total_flops() / 2
        write_beside(folder / BILL, json.dumps({"macs": macs, "seconds": seconds}))


def _read_bill(path: Path) -> Item:
    try:
        return Item(what="pruning", **json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise StorageError(
            f"{path} does not say what the pruning cost ({error}). Delete the file to prune the "
            "network again."
        ) from error
