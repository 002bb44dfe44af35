"""`cut_`: remove units and layers from a model that is being trained, for good."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from torch import nn
from torch.optim import Optimizer

from secateur.errors import SurgeryError
from secateur.structure import Decision, Live, Structure, named_tensors, prove, without_collector
from secateur.surgery._compose import compose
from secateur.surgery._edit import Edit
from secateur.surgery._journal import Journal
from secateur.surgery._operate import operate_
from secateur.surgery._optimizer import Cut, check_optimizers, follow_, forget_
from secateur.surgery._plan import Plan, plan_cut
from secateur.surgery._remaining import remaining

EDIT_ATTRIBUTE = "_secateur_edit"
"""Where a model carries the record of what was removed from it."""


def cut_(
    model: nn.Module,
    structure: Structure,
    live: Live,
    decision: Decision,
    *,
    optimizers: Iterable[Optimizer] = (),
    extra_models: Iterable[nn.Module] = (),
    proof: bool = True,
) -> tuple[Live, Edit]:
    """Remove units and layers from a model, in place.

    The model, its parameters and the optimizers stay the same objects: parameters keep ties,
    ``requires_grad``, hooks and gradients, and optimizer state follows. Modules of removed layers
    are replaced by stand-ins from `secateur.nn`, and hooks on the replaced modules go with them;
    their parameters leave the optimizers. Whatever goes wrong, everything is as it was before the
    call. Until the end of the call old and new tensors take up memory side by side.

    Args:
        model: The model, in state ``live``.
        structure: What it was made of when it was traced.
        live: What is left of that now.
        decision: What is to go, in numbers of the traced model.
        optimizers: Optimizers that hold its parameters.
        extra_models: Copies that shrink along, such as moving averages; a copy may be wrapped, as
            in `torch.optim.swa_utils.AveragedModel`.
        proof: Whether to trace the smaller model again and hold it against the original.

    Returns:
        What is left now, and the record of everything that separates the model from the one that
        was built, which the model also carries.

    Raises:
        SurgeryError: The decision cannot be carried out on this model.
        MiswiredError: The smaller model would compute something else.

    Example:
        >>> import torch
        >>> from secateur.structure import Decision, trace
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
        >>> structure = trace(net, torch.zeros(1, 8))
        >>> decision = Decision(units={0: torch.tensor([1, 2])})
        >>> live, edit = cut_(net, structure, structure.everything(), decision)
        >>> net[0]
        Linear(in_features=8, out_features=2, bias=True)
    """
    optimizers = tuple(optimizers)
    after = remaining(structure, live, decision)
    check_optimizers(optimizers)
    if not decision:
        return live, edit_of(model)
    copies = [_copy_inside(extra, model) for extra in extra_models]
    with without_collector(), Journal() as journal:
        plan = plan_cut(model, structure, live, after)
        edit = _cut_one_(model, plan, optimizers, journal)
        for copy in copies:
            _cut_one_(copy, plan, (), journal)
        if proof:
            prove(model, structure, after)
    return after, edit


def edit_of(model: nn.Module) -> Edit:
    """Return the record of everything that was removed from a model so far.

    Args:
        model: Any module.

    Returns:
        The record; empty if nothing was removed.
    """
    edit = getattr(model, EDIT_ATTRIBUTE, None)
    return edit if isinstance(edit, Edit) else Edit()


def _cut_one_(
    model: nn.Module, plan: Plan, optimizers: Sequence[Optimizer], journal: Journal
) -> Edit:
    tensors = named_tensors(model)
    cuts = {
        tensor: Cut(name=name, shape=tensor.shape, axes=plan.slices[name])
        for name, tensor in tensors.items()
        if name in plan.slices and isinstance(tensor, nn.Parameter)
    }
    operate_(model, plan, journal)
    left = named_tensors(model) if plan.stubs else tensors
    here = {id(tensor) for tensor in left.values()}
    gone = {t: None for t in tensors.values() if isinstance(t, nn.Parameter) and id(t) not in here}
    for optimizer in optimizers:
        follow_(optimizer, cuts, journal)
        forget_(optimizer, gone, journal)
    edit = compose(edit_of(model), plan, tensors, left, model)
    record_(model, edit, journal)
    return edit


def record_(model: nn.Module, edit: Edit, journal: Journal) -> None:
    """Let a model carry its record.

    Args:
        model: The model.
        edit: The record.
        journal: Where the way back is noted.
    """
    old = vars(model).get(EDIT_ATTRIBUTE)
    undo = partial(vars(model).pop, EDIT_ATTRIBUTE)
    journal.note(undo if old is None else partial(setattr, model, EDIT_ATTRIBUTE, old))
    setattr(model, EDIT_ATTRIBUTE, edit)


def _copy_inside(extra: nn.Module, model: nn.Module) -> nn.Module:
    """Find the copy of the model in what was passed as an extra model."""
    shapes = {name: tensor.shape for name, tensor in named_tensors(model).items()}
    inner = vars(extra)["_modules"].get("module")
    for candidate in (extra, inner):
        if candidate is not None and shapes == {
            name: tensor.shape for name, tensor in named_tensors(candidate).items()
        }:
            return candidate
    raise SurgeryError(
        f"The extra model of type {type(extra).__name__} is no copy of the model: expected the "
        "same tensor names and shapes, in itself or in its attribute `module`. Copy the model as "
        "it is now, and pass the copy to every removal from then on."
    )
