"""What methods have in common that narrow a trained network while it trains on."""

from __future__ import annotations

from secateur.compare.recipes._bill import Bill
from secateur.compare.recipes._job import Job, Made
from secateur.training import trainer


def train_then_narrow(job: Job, search: trainer.AOFPConfig | trainer.ResRepConfig) -> Made:
    """Train the full network, then narrow it and train on in one.

    Args:
        job: The cell.
        search: How it is narrowed.

    Returns:
        The network and the bill of both trainings.
    """
    before = job.pretrain()
    weights = str(before.outcome.run.resolve())
    changes = {
        "model": job.base.model.model_copy(update={"weights": weights}),
        "training": job.schedules.fine_tuning,
        "search": search,
    }
    after = job.train("fine-tuning", job.base.model_copy(update=changes))
    return Made(outcome=after.outcome, bill=Bill((*before.bill.items, *after.bill.items)))
