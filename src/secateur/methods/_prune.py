"""`prune`: make a network smaller by taking out what scores lowest, at once or in rounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from secateur.errors import UsageError
from secateur.methods._checks import check_removable, check_share
from secateur.methods._greedy import Budget, choose
from secateur.methods._pruned import Pruned, Round, merge_scores
from secateur.methods.scores import Loss, Score, Subject, score_named
from secateur.structure import Structure, trace
from secateur.surgery import (
    cut_,
    distributed_in,
    edit_of,
    rehearse,
    renew_reducer_,
    unwrapped,
)


def prune(  # noqa: PLR0913 (the settings a user has, frozen by a test)
    model: nn.Module,
    example_inputs: Any,
    *,
    score: str | Score = "taylor",
    target_macs: float | None = None,
    target_params: float | None = None,
    data: Iterable[Any] | None = None,
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
    rounds: int = 1,
    fine_tune: Callable[[nn.Module], object] | None = None,
    allow_inexact: bool = False,
    head_dims: bool = False,
    seed: int = 0,
) -> Pruned:
    """Remove the units of a network that score lowest, until it costs no more than it may.

    Units of all families are ranked together. The model, its parameters and the optimizer stay the
    same objects, and parameters keep ties, hooks and gradients; the optimizer's state follows. At
    least one unit of every family stays; layers are not scored and stay.

    Args:
        model: The network, trained or, for scores such as ``"synflow"`` and ``"snip"``, not; bare,
            compiled, or in DistributedDataParallel. There every process calls ``prune``, and
            scores are averaged.
        example_inputs: A tensor, a tuple of positional arguments or a dict of keyword arguments.
        score: Name of a score, or an object with ``needs_data`` and ``units(subject)``.
        target_macs: MACs at the end as a share of the model's now, in (0, 1).
        target_params: Parameters at the end as a share of the model's now, in (0, 1). With
            ``target_macs``, both are kept.
        data: Batches the score is measured on, such as a list of some batches of the training
            data; scores that need none leave it alone.
        loss: Called with the model, without wrappers, and a batch; returns the mean loss.
        optimizer: Its optimizer, if it is trained further.
        rounds: Number of removals, with scores measured anew before each. Costs fall by the same
            factor every round.
        fine_tune: Called with the model, as it was given, after every removal, the last included.
        allow_inexact: As in `trace`.
        head_dims: As in `trace`.
        seed: Seed of scores that draw numbers.

    Returns:
        What went and what it saved; ``print`` it.

    Raises:
        UsageError: The settings contradict each other, or the target cannot be reached.
        NothingRemovableError: No unit of the model can be removed.
        TraceError: The model's forward cannot be followed.
        MiswiredError: A smaller model would compute something else; the model is as it was.

    Example:
        >>> import torch, secateur
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
        >>> pruned = secateur.prune(net, torch.zeros(1, 8), score="magnitude", target_macs=0.5)
        >>> net[0]
        Linear(in_features=8, out_features=3, bias=True)
        >>> pruned.macs
        (60.0, 30.0)
    """
    name, ranking = _named(score)
    _check_targets(target_macs, target_params)
    _check_rounds(rounds, data)
    if ranking.needs_data and (data is None or loss is None):
        raise UsageError(
            f"score={name!r} measures a loss and got {_missing(data, loss)}. Pass data=, an "
            "iterable of batches, and loss=, a function of the model and a batch such as `lambda "
            "model, batch: F.cross_entropy(model(batch[0]), batch[1])`, or use a score that needs "
            'neither, such as score="magnitude".'
        )
    inner, wrappers = unwrapped(model), distributed_in(model)
    structure = trace(inner, example_inputs, allow_inexact=allow_inexact, head_dims=head_dims)
    check_removable(inner, structure, with_layers=False)
    rehearse(inner, structure)
    generator = torch.Generator().manual_seed(seed)
    live, edit = structure.everything(), edit_of(inner)
    scores_U = torch.zeros(structure.num_units, dtype=torch.float64)
    done: list[Round] = []
    for budgets in _schedule(structure, target_macs, target_params, rounds):
        measured_U = ranking.units(
            Subject(
                model=inner,
                structure=structure,
                live=live,
                batches=() if data is None else data,
                loss=loss,
                generator=generator,
            )
        )
        scores_U = merge_scores(scores_U, _averaged(measured_U, wrappers), live)
        decision = choose(structure, live, scores_U, budgets)
        optimizers = () if optimizer is None else (optimizer,)
        if decision:
            live, edit = cut_(inner, structure, live, decision, optimizers=optimizers)
            for wrapper in wrappers:
                renew_reducer_(wrapper)
        done.append(
            Round(
                num_units=sum(len(gone) for gone in decision.units.values()),
                macs=structure.cost.macs.value(live.counts, live.layers),
                params=structure.cost.params.value(live.counts, live.layers),
            )
        )
        if fine_tune is not None:
            fine_tune(model)
    return Pruned(
        structure=structure,
        live=live,
        edit=edit,
        score=name,
        scores=scores_U,
        rounds=tuple(done),
    )


def _named(score: str | Score) -> tuple[str, Score]:
    if isinstance(score, str):
        return score, score_named(score)
    return type(score).__name__, score


def _averaged(score_U: Tensor, wrappers: tuple[DistributedDataParallel, ...]) -> Tensor:
    """Average scores over processes, each of which may have measured on data of its own."""
    for wrapper in wrappers:
        total_U = score_U.to(next(wrapper.parameters()), copy=True)
        distributed.all_reduce(total_U, group=wrapper.process_group)
        score_U = total_U / distributed.get_world_size(wrapper.process_group)
    return score_U.cpu()


def _schedule(
    structure: Structure, macs_share: float | None, params_share: float | None, rounds: int
) -> Iterator[tuple[Budget, ...]]:
    """Yield the budgets of every round: after round k of n, share^(k / n) of the cost."""
    wanted = (
        ("MACs", structure.cost.macs, macs_share),
        ("parameters", structure.cost.params, params_share),
    )
    for number in range(1, rounds + 1):
        yield tuple(
            Budget(name=name, cost=cost, most=cost.value() * share ** (number / rounds))
            for name, cost, share in wanted
            if share is not None
        )


def _check_targets(macs_share: float | None, params_share: float | None) -> None:
    if macs_share is None and params_share is None:
        raise UsageError(
            "prune was not told how small the model should get. Pass target_macs=0.5 for half the "
            "MACs, or target_params=0.5 for half the parameters."
        )
    for name, share in (("target_macs", macs_share), ("target_params", params_share)):
        check_share(name, share, "what is left, as a share of the model as it is now")


def _check_rounds(rounds: int, data: Iterable[Any] | None) -> None:
    if rounds < 1:
        raise UsageError(f"rounds={rounds} removes nothing. Pass 1 for one removal, or more.")
    if rounds > 1 and isinstance(data, Iterator):
        raise UsageError(
            f"data is a {type(data).__name__}, which can be gone through once, and {rounds} rounds "
            "measure scores anew each. Pass a list of batches or a DataLoader."
        )


def _missing(data: Iterable[Any] | None, loss: Loss | None) -> str:
    lacking = [name for name, value in (("data", data), ("loss", loss)) if value is None]
    return " and ".join(f"no {name}" for name in lacking)
