"""When things happen in a run: defaults that fit a hundred steps as well as a million.

Letters: T patience, H hold.
"""

from __future__ import annotations

from dataclasses import dataclass

from secateur.errors import UsageError

MIN_WARMUP = 200
MIN_PATIENCE = 300
PATIENCE_EPOCHS = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Lengths in optimizer steps.

    Attributes:
        warmup: Steps before the first probability moves.
        settle: Step from which on the network is final.
        patience: T, steps in which a useless structure goes from probability 1 to 0.
        hold: H, consecutive steps at 0 before a structure is removed.
        interval: Steps between two probes, two looks at prices and two decisions.
        epoch: Steps after which whatever may go is removed.
    """

    warmup: int
    settle: int
    patience: int
    hold: int
    interval: int
    epoch: int


def plan(
    *,
    total_steps: int,
    steps_per_epoch: int | None,
    settle_at: float,
    warmup: int | None = None,
    patience: int | None = None,
    hold: int | None = None,
) -> Schedule:
    """Fill in what the user left open.

    A structure needs T + H = 1.25 T steps to leave. Long runs get T = 1.5 epochs and at least 300
    steps; short ones a third of the steps between warm-up and settling, so that a useless
    structure, and after it one that became useless by its absence, can still go. The
    warm-up is 200 steps, or a fifth of what comes before settling if that is less.

    Args:
        total_steps: Optimizer steps of the whole training.
        steps_per_epoch: Steps of an epoch, or None.
        settle_at: Share of the training after which the network is final.
        warmup: Steps, or None.
        patience: Steps, or None.
        hold: Steps, or None.

    Returns:
        The schedule.

    Raises:
        UsageError: The run is too short for the warm-up.
    """
    settle = round(settle_at * total_steps)
    warmup = min(MIN_WARMUP, settle // 5) if warmup is None else warmup
    if warmup >= settle:
        raise UsageError(
            f"total_steps={total_steps} with settle_at={settle_at} settles at step {settle}, "
            f"which is not after the warm-up of {warmup} steps. Train longer or lower warmup."
        )
    if patience is None:
        wanted = max(MIN_PATIENCE, round(PATIENCE_EPOCHS * (steps_per_epoch or 0)))
        patience = max(1, min(wanted, (settle - warmup) // 3))
    return Schedule(
        warmup=warmup,
        settle=settle,
        patience=patience,
        hold=max(1, patience // 4) if hold is None else hold,
        interval=min(20, max(5, patience // 15)),
        epoch=steps_per_epoch or max(1, total_steps // 50),
    )
