"""`iterate`: train, mask, rewind, train again, until a few weights do the work of many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from secateur.errors import UsageError
from secateur.masks import Masks
from secateur.methods.mask_rules import MaskRule, mask_rule_named
from secateur.methods.stoppers import FixedChunks, Stopper
from secateur.training.iteration._checkpoint import Checkpoint
from secateur.training.iteration._records import IterationReport, Level
from secateur.training.iteration._rewind import Rewind, rewind_named
from secateur.training.iteration._run import Run, Train
from secateur.training.iteration._snapshot import Stateful, Trained


def iterate(  # noqa: PLR0913 (the settings a user has, frozen by a test)
    model: nn.Module,
    optimizer: Optimizer,
    train: Train,
    *,
    levels: int,
    max_chunks: int,
    rule: MaskRule | str = "global-magnitude",
    stopper: Stopper | None = None,
    rewind: Rewind | str = "all",
    warm_up: int = 0,
    last_chunks: int | None = None,
    evaluate: Callable[[], float] | None = None,
    masks: Masks | None = None,
    also: Sequence[Stateful] = (),
    chunk_epochs: float = 1.0,
    on_level: Callable[[Level], None] | None = None,
    checkpoint: str | Path | None = None,
    seed: int = 0,
) -> IterationReport:
    """Prune single weights over several levels, in your own training loop.

    Level 0 trains the dense network. Every further level masks weights of the trained network by a
    rule, rewinds the others, and trains again. ``train`` is called once a chunk, such as an epoch,
    and after each the stopper may end the level. Masked weights stay exactly zero throughout.

    Iterative magnitude pruning is this with ``rule="global-magnitude"`` and no stopper (Frankle &
    Carbin 2019, arXiv 1803.03635); SAP is ``rule="sap"`` (Diao et al. 2023, arXiv 2302.05601);
    InfCoP (2025, arXiv 2501.15592) is any rule with a `FlowConsistency` stopper.

    In DistributedDataParallel the first process's word to stop holds for all.

    Args:
        model: The model, without wrappers. It stays the same object.
        optimizer: Its optimizer. It stays the same object.
        train: Trains one chunk. It gets the number of the level and of the chunk, and the budget,
            for schedules within a level and for the order of the data.
        levels: Number of levels, the dense one included, at least 1.
        max_chunks: Chunks of training a level takes at most.
        rule: Which weights go at every level: ``magnitude``, ``global-magnitude``, ``sap``,
            ``random``, or a rule of `secateur.methods.mask_rules` with its settings.
        stopper: When a level ends before its budget is spent; None: never.
        rewind: Where levels start: ``all`` (weights, biases, norms, buffers, optimizer and
            ``also`` as at the rewind point), ``learning-rate`` (optimizer and ``also`` only),
            ``none``, or a policy of your own.
        warm_up: Chunks of dense training before the rewind point; 0 rewinds to how the model is.
        last_chunks: Chunks of the last level, which then ends by budget only; None treats it as
            any other level.
        evaluate: Called at the end of every level, such as for the accuracy on a validation split.
        masks: The masks to use, for parameters of your choice; None for new ones on all linear,
            convolutional, attention and recurrent weights.
        also: Learning rate schedules, gradient scalers, averages: rewound with the optimizer.
        chunk_epochs: Epochs that ``train`` trains in a chunk, for the report.
        on_level: Called with the record of every level as it ends.
        checkpoint: A folder for the state at the end of every level. If it holds one, the run goes
            on from there: call again with the same settings, after a crash or a stop. Equal to the
            run without the stop, bit for bit on one CPU process, if ``train`` draws from torch's
            generators or from what it is told only.
        seed: Seed of rules that draw.

    Returns:
        Levels, epochs, and what measuring cost; printing it shows a table.

    Raises:
        UsageError: A setting is unknown or out of range, model and optimizer do not belong
            together, or the checkpoint is of a run with other settings.
        StorageError: The checkpoint is damaged or cannot be written.

    Example:
        >>> import torch, secateur
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> inputs, labels = torch.randn(16, 8), torch.randint(2, (16,))
        >>> def train(chunk):
        ...     optimizer.zero_grad()
        ...     torch.nn.functional.cross_entropy(net(inputs), labels).backward()
        ...     optimizer.step()
        >>> report = secateur.iterate(net, optimizer, train, levels=3, max_chunks=2)
        >>> [level.num_kept for level in report.levels]
        [60, 48, 38]
    """
    _check(levels=levels, max_chunks=max_chunks, warm_up=warm_up, last_chunks=last_chunks)
    rule = mask_rule_named(rule) if isinstance(rule, str) else rule
    rewind = rewind_named(rewind) if isinstance(rewind, str) else rewind
    own = Masks(model, optimizer) if masks is None else masks
    stopper = stopper or FixedChunks(max_chunks)
    run = Run(
        Trained(model=model, optimizer=optimizer, also=also),
        own,
        train,
        rule=rule,
        rewind=rewind,
        stopper=stopper,
        evaluate=evaluate,
        seed=seed,
    )
    settings = {
        "levels": levels,
        "max_chunks": max_chunks,
        "warm_up": warm_up,
        "last_chunks": last_chunks,
        "seed": seed,
        "rule": type(rule).__name__,
        "rewind": type(rewind).__name__,
        "stopper": type(stopper).__name__,
        "masked": list(own.names),
    }
    saved = None if checkpoint is None else Checkpoint(Path(checkpoint), settings, run.device)
    try:
        run.begin(warm_up, saved)
        while len(run.records) < levels:
            last = len(run.records) == levels - 1
            if last and last_chunks is not None:
                record = run.level(last_chunks, FixedChunks(last_chunks))
            else:
                record = run.level(max_chunks, stopper)
            if saved is not None:
                saved.write(run.state())
            if on_level is not None:
                on_level(record)
    except BaseException:
        if masks is None:
            own.detach()
        raise
    return IterationReport(
        levels=tuple(run.records),
        warm_up_chunks=warm_up,
        warm_up_seconds=run.warm_up_seconds,
        chunk_epochs=chunk_epochs,
        masks=own,
    )


def _check(*, levels: int, max_chunks: int, warm_up: int, last_chunks: int | None) -> None:
    if levels < 1 or max_chunks < 1 or warm_up < 0 or (last_chunks is not None and last_chunks < 1):
        raise UsageError(
            f"iterate got levels={levels}, max_chunks={max_chunks}, warm_up={warm_up} and "
            f"last_chunks={last_chunks}. It needs at least one level, the dense one, and one chunk "
            "of training in each; warm_up counts from 0."
        )
