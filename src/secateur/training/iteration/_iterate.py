"""`iterate`: train, mask, rewind, train again, until a few weights do the work of many."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from secateur.errors import UsageError
from secateur.masks import Masks
from secateur.methods.mask_rules import MaskRule, mask_rule_named
from secateur.methods.stoppers import FixedChunks, Stopper
from secateur.training.iteration._records import Chunk, IterationReport, Level
from secateur.training.iteration._rewind import Rewind, rewind_named
from secateur.training.iteration._snapshot import Stateful, Trained
from secateur.training.iteration._stopwatch import Stopwatch

Train = Callable[[Chunk], object]


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
        seed: Seed of rules that draw.

    Returns:
        Levels, epochs, and what measuring cost; printing it shows a table.

    Raises:
        UsageError: A setting is unknown or out of range, or model and optimizer do not belong
            together.

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
    run = _Run(
        Trained(model=model, optimizer=optimizer, also=also),
        own,
        train,
        rule=rule,
        rewind=rewind,
        evaluate=evaluate,
        seed=seed,
    )
    budgets = [max_chunks] * levels
    stoppers = [stopper or FixedChunks(max_chunks)] * levels
    if last_chunks is not None:
        budgets[-1], stoppers[-1] = last_chunks, FixedChunks(last_chunks)
    try:
        warm_up_seconds = run.warm_up(warm_up)
        records = []
        for number, (budget, ends) in enumerate(zip(budgets, stoppers, strict=True)):
            records.append(run.level(number, budget, ends))
            if on_level is not None:
                on_level(records[-1])
    except BaseException:
        if masks is None:
            own.detach()
        raise
    return IterationReport(
        levels=tuple(records),
        warm_up_chunks=warm_up,
        warm_up_seconds=warm_up_seconds,
        chunk_epochs=chunk_epochs,
        masks=own,
    )


class _Run:
    """What the levels of one call share."""

    def __init__(
        self,
        trained: Trained,
        masks: Masks,
        train: Train,
        *,
        rule: MaskRule,
        rewind: Rewind,
        evaluate: Callable[[], float] | None,
        seed: int,
    ) -> None:
        self._trained = trained
        self._masks = masks
        self._train = train
        self._rule = rule
        self._rewind = rewind
        self._evaluate = evaluate
        self._generator = torch.Generator().manual_seed(seed)
        self._device = next(iter(masks.weights.values())).device
        self._watch = Stopwatch(self._device)
        self._total = 0

    def warm_up(self, chunks: int) -> float:
        """Train to the rewind point and remember it; return the seconds."""
        for number in range(chunks):
            self._chunk(level=0, number=number, budget=chunks, warm_up=True)
        self._rewind.remember(self._trained)
        return self._watch.take("train")

    def level(self, number: int, budget: int, stopper: Stopper) -> Level:
        """Mask, rewind and train."""
        with self._watch.measure("mask"):
            if number > 0:
                self._mask_and_rewind()
        with self._watch.measure("stopper"):
            stopper.level_begins(number)
        readings: list[Mapping[str, float]] = []
        stop = False
        while not stop and len(readings) < budget:
            self._chunk(level=number, number=len(readings), budget=budget, warm_up=False)
            with self._watch.measure("stopper"):
                stop = self._agreed(stopper.should_stop(len(readings) + 1))
            readings.append(dict(stopper.readings))
        with self._watch.measure("stopper"):
            stopper.level_ends(number)
        return self._record(number, budget, stopper.because if stop else "", readings)

    def _mask_and_rewind(self) -> None:
        kept = self._rule.next_masks(self._masks.weights, self._masks.kept, self._generator)
        self._rewind.restore_(self._trained)
        self._masks.set_(kept)

    def _chunk(self, *, level: int, number: int, budget: int, warm_up: bool) -> None:
        chunk = Chunk(level=level, number=number, budget=budget, total=self._total, warm_up=warm_up)
        with self._watch.measure("train"):
            self._train(chunk)
        self._total += 1

    def _record(
        self, number: int, budget: int, because: str, readings: list[Mapping[str, float]]
    ) -> Level:
        with self._watch.measure("evaluate"):
            evaluation = None if self._evaluate is None else float(self._evaluate())
        return Level(
            number=number,
            num_kept=self._masks.num_kept,
            kept_share=self._masks.kept_share,
            emptied=self._masks.emptied,
            chunks=len(readings),
            budget=budget,
            because=because,
            readings=tuple(readings),
            train_seconds=self._watch.take("train"),
            measure_seconds=self._watch.take("stopper"),
            mask_seconds=self._watch.take("mask"),
            evaluation=evaluation,
            evaluate_seconds=self._watch.take("evaluate"),
        )

    def _agreed(self, stop: bool) -> bool:
        """Let all processes do what the first one says: rounding may differ between them."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return stop
        said = torch.tensor([stop], dtype=torch.uint8, device=self._device)
        torch.distributed.broadcast(said, src=0)
        return bool(said.item())


def _check(*, levels: int, max_chunks: int, warm_up: int, last_chunks: int | None) -> None:
    if levels < 1 or max_chunks < 1 or warm_up < 0 or (last_chunks is not None and last_chunks < 1):
        raise UsageError(
            f"iterate got levels={levels}, max_chunks={max_chunks}, warm_up={warm_up} and "
            f"last_chunks={last_chunks}. It needs at least one level, the dense one, and one chunk "
            "of training in each; warm_up counts from 0."
        )
