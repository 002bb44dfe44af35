"""How the epochs of a comparison are shared between training, pre-training and fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.errors import UsageError
from secateur.training import trainer

FINE_TUNE_SHARE = 1 / 3
LONGEST_WARMUP_SHARE = 0.5


class FineTuneConfig(trainer.Section):
    """The section ``[fine_tune]``: what methods do that prune a network trained before.

    What is left out keeps the total: pre-training and fine-tuning together take the epochs that a
    network trained from scratch gets.

    Attributes:
        pretrain_epochs: Epochs before the pruning.
        epochs: Epochs after it; a third of all if neither is given.
        lr: Highest learning rate of the fine-tuning; that of the training if left out, as in
            Renda et al., "Comparing Rewinding and Fine-tuning in Neural Network Pruning",
            ICLR 2020 (arXiv 2003.02389).
        warmup_epochs: Of the fine-tuning; that of the training if left out.
    """

    pretrain_epochs: trainer.Count | None = None
    epochs: trainer.Count | None = None
    lr: trainer.Positive | None = None
    warmup_epochs: trainer.NotNegative | None = None


@dataclass(frozen=True, slots=True)
class Schedules:
    """The three trainings there are in a comparison.

    Attributes:
        scratch: Of a network that is trained from its first step to its last.
        pretraining: Of a network that is pruned afterwards.
        fine_tuning: Of a network that was pruned.
    """

    scratch: trainer.TrainingConfig
    pretraining: trainer.TrainingConfig
    fine_tuning: trainer.TrainingConfig


def schedules(training: trainer.TrainingConfig, fine_tune: FineTuneConfig) -> Schedules:
    """Work the three trainings out.

    Args:
        training: Of a network that is trained from scratch.
        fine_tune: How the epochs are shared.

    Returns:
        The trainings. A warm-up takes at most half of the epochs of its training.

    Raises:
        UsageError: There are too few epochs to share.
    """
    pretrain_epochs, epochs = _shared(training.epochs, fine_tune)
    lr = training.lr if fine_tune.lr is None else fine_tune.lr
    warmup = fine_tune.warmup_epochs
    return Schedules(
        scratch=training,
        pretraining=_part(training, pretrain_epochs, training.lr, training.warmup_epochs),
        fine_tuning=_part(
            training, epochs, lr, training.warmup_epochs if warmup is None else warmup
        ),
    )


def _shared(total: int, fine_tune: FineTuneConfig) -> tuple[int, int]:
    before, after = fine_tune.pretrain_epochs, fine_tune.epochs
    if after is None:
        after = max(1, round(FINE_TUNE_SHARE * total)) if before is None else total - before
    if before is None:
        before = total - after
    if before < 1 or after < 1:
        raise UsageError(
            f"training.epochs is {total}, which leaves {before} epochs of pre-training and {after} "
            "of fine-tuning; each needs at least 1. Give more training.epochs, or set both "
            "fine_tune.pretrain_epochs and fine_tune.epochs"
        )
    return before, after


def _part(
    training: trainer.TrainingConfig, epochs: int, lr: float, warmup_epochs: float
) -> trainer.TrainingConfig:
    longest = LONGEST_WARMUP_SHARE * epochs
    changes = {"epochs": epochs, "lr": lr, "warmup_epochs": min(warmup_epochs, longest)}
    return training.model_copy(update=changes)
