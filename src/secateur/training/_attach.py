"""`attach`: the one line that lets a network find its own size in the user's own training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from secateur.errors import UsageError
from secateur.methods import ComplexityAware, Method, check_removable
from secateur.structure import Cost, Structure, trace
from secateur.surgery import distributed_in, rehearse, unwrapped
from secateur.training._hooks import is_attached
from secateur.training._session import Session
from secateur.training._session_events import Event

ExampleInputs = Tensor | tuple[object, ...] | dict[str, object]


def attach(  # noqa: PLR0913 (the settings a user has, frozen by a test)
    model: nn.Module,
    optimizer: Optimizer,
    example_inputs: ExampleInputs,
    *,
    price: float | None = None,
    target_macs: float | None = None,
    target_params: float | None = None,
    compute_share: float | None = None,
    layer_share: float | None = None,
    reference: float | tuple[float, float] | Cost | None = None,
    method: Method | None = None,
    total_steps: int | None = None,
    steps_per_epoch: int | None = None,
    allow_inexact: bool = False,
    head_dims: bool = False,
    seed: int = 0,
    ema: Sequence[nn.Module] = (),
    on_event: Callable[[Event], None] | None = None,
) -> Session:
    """Let a network find its own size while it trains; the training loop stays as it is.

    Units and layers are switched off at random for single steps, by zeroing weights in place
    between the model's forward and the optimizer's update; what does not earn its cost is removed
    from model and optimizer, which stay the same objects. Give one of ``price``, ``target_macs``
    and ``target_params``, or a ``method`` with its own settings.

    Good to know:

    - Every forward of the model in training mode with gradients belongs to the coming update.
      Evaluation, ``state_dict`` and copies of the model see the network with every gate open.
    - Gradient clipping before ``optimizer.step()`` rescales what the search reads: worth is then
      measured in clipped nats. Losses measured on the side are not affected.
    - An update applies momentum and weight decay to slices that were switched off, too; their
      gradient counts as 0.
    - A step whose loss is measured on the side calls the model once more, without gradients; its
      generators, buffers and gradients are put back. Python code in the forward that counts its
      calls counts this one.
    - Where the loss takes numbers out of tensors, as with ``.item()``, these numbers count as
      constants in measured losses, as they do in gradients.

    Args:
        model: The model, bare, in DistributedDataParallel, or compiled.
        optimizer: Its optimizer. It must hold every parameter whose slices can be switched off,
            and no parameter of another model.
        example_inputs: A tensor, a tuple of positional arguments or a dict of keyword arguments.
        price: Training loss in nats one pays to be rid of 100 % of the complexity; 0 is plain
            training, bit for bit.
        target_macs: MACs at the end as a share of the reference, in (0, 1).
        target_params: Parameters at the end as a share of the reference, in (0, 1).
        compute_share: What complexity is: 1 MACs, 0 parameters. None is 1, or 0 with
            ``target_params``.
        layer_share: Which structures are priced: 0 units only, 1 layers only. None is 0.5, both
            at face value.
        reference: The complexity that counts as 100 %; None is the network as it starts.
        method: Another method, or the same with more settings.
        total_steps: Optimizer steps of the whole training.
        steps_per_epoch: Optimizer steps of an epoch, if there are epochs.
        allow_inexact: As in `trace`. While such a unit is switched off, norms and routers still
            count it; when it is removed, they no longer do, and the output changes by that.
        head_dims: As in `trace`.
        seed: Seed of the gates, the same on every process.
        ema: Averaged copies of the model, which shrink along.
        on_event: Called with every event, a plain dictionary, as it happens.

    Returns:
        The handle: ``report()``, ``detach()``, ``state_dict()``, ``events``, ``live``.

    Raises:
        UsageError: The settings contradict each other, or optimizer and model do not belong
            together.
        NothingRemovableError: Nothing in the model can be removed.
        TraceError: The model's forward cannot be followed.
        MiswiredError: A smaller model would compute something else, such as where a forward scales
            by a width that surgery changes. It is known before training, from a rehearsal.

    Example:
        >>> import torch, secateur
        >>> net = torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
        >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        >>> inputs, labels = torch.randn(16, 8), torch.randint(2, (16,))
        >>> search = secateur.attach(net, optimizer, inputs[:1], price=0.3, total_steps=50)
        >>> for _ in range(50):
        ...     optimizer.zero_grad()
        ...     torch.nn.functional.cross_entropy(net(inputs), labels).backward()
        ...     optimizer.step()
        >>> search.settled
        True
    """
    inner = unwrapped(model)
    if is_attached(inner):
        raise UsageError(
            f"A search is already attached to this {type(inner).__name__}. Call `detach()` on the "
            "first one before attaching another."
        )
    method = _method(
        method,
        price=price,
        target_macs=target_macs,
        target_params=target_params,
        compute_share=compute_share,
        layer_share=layer_share,
        reference=reference,
    )
    steps = _check_steps(total_steps, steps_per_epoch)
    distributed_in(model)
    _check_devices(inner)
    _check_optimizer(inner, optimizer)
    structure = trace(inner, example_inputs, allow_inexact=allow_inexact, head_dims=head_dims)
    check_removable(inner, structure, with_layers=True)
    _check_trainable(inner, optimizer, structure)
    rehearse(inner, structure)
    return Session(
        inner,
        model,
        optimizer,
        structure,
        method,
        total_steps=steps,
        steps_per_epoch=steps_per_epoch,
        seed=seed,
        ema=ema,
        on_event=on_event,
    )


def _method(
    method: Method | None,
    *,
    price: float | None,
    target_macs: float | None,
    target_params: float | None,
    compute_share: float | None,
    layer_share: float | None,
    reference: float | tuple[float, float] | Cost | None,
) -> Method:
    if method is None:
        return ComplexityAware(
            price=price,
            target_macs=target_macs,
            target_params=target_params,
            compute_share=compute_share,
            layer_share=0.5 if layer_share is None else layer_share,
            reference=reference,
        )
    given = {
        "price": price,
        "target_macs": target_macs,
        "target_params": target_params,
        "compute_share": compute_share,
        "layer_share": layer_share,
        "reference": reference,
    }
    extra = [name for name, value in given.items() if value is not None]
    if extra:
        raise UsageError(
            f"attach got method={type(method).__name__}(...) and {', '.join(extra)} beside it. A "
            f"method brings its own settings. Write {type(method).__name__}({extra[0]}=...)."
        )
    return method


def _check_steps(total_steps: int | None, steps_per_epoch: int | None) -> int:
    if total_steps is None or total_steps < 1:
        raise UsageError(
            f"total_steps={total_steps} does not say how long the training is. The search plans "
            "its warm-up and its end by it. Pass the number of optimizer steps, such as "
            "total_steps=epochs * len(loader)."
        )
    if steps_per_epoch is not None and not 1 <= steps_per_epoch <= total_steps:
        raise UsageError(
            f"steps_per_epoch={steps_per_epoch} must lie between 1 and total_steps={total_steps}. "
            "Pass the number of optimizer steps of one epoch, or leave it out."
        )
    return total_steps


def _check_devices(model: nn.Module) -> None:
    where: dict[torch.device, str] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        where.setdefault(tensor.device, name)
    if len(where) > 1:
        places = " and ".join(f"{name} on {device}" for device, name in where.items())
        raise UsageError(
            f"The model lies on {len(where)} devices: {places}. The search works on a model "
            "that lies on one device. Move it with `model.to(device)` before making the optimizer."
        )


def _check_optimizer(model: nn.Module, optimizer: Optimizer) -> None:
    own = {id(parameter) for parameter in model.parameters()}
    held = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    foreign = [parameter for parameter in held if id(parameter) not in own]
    if held and len(foreign) == len(held):
        raise UsageError(
            f"None of the {len(held)} parameters of this {type(optimizer).__name__} belongs to "
            f"the {type(model).__name__}. Make the optimizer from the same object, after moving it "
            "to its device: `torch.optim.SGD(model.parameters(), lr=0.1)`."
        )
    if foreign:
        shapes = ", ".join(str(tuple(parameter.shape)) for parameter in foreign[:3])
        raise UsageError(
            f"The optimizer holds {len(foreign)} parameters, of shapes {shapes}, that the "
            f"{type(model).__name__} does not have. Removals have to reach everything that is "
            "trained together. Attach to the module that contains them all, or give the others "
            "an optimizer of their own."
        )


def _check_trainable(model: nn.Module, optimizer: Optimizer, structure: Structure) -> None:
    """Refuse gates on weights without a gradient: their units would look useless."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    parameters = dict(model.named_parameters())
    gates = [m.tensor for f in structure.families for m in f.members if m.consumes]
    gates += [name for layer in structure.layers for name in layer.closing]
    for name in dict.fromkeys(gates):
        parameter = parameters.get(name)
        if parameter is None or not parameter.requires_grad or id(parameter) not in held:
            why = "is frozen" if parameter is None or not parameter.requires_grad else "is left out"
            raise UsageError(
                f"{name} {why}: units feed into it, and their worth is read from its gradient, "
                "but the optimizer does not train it. Set requires_grad and pass every parameter "
                "of the model to the optimizer; weights may be frozen once the search has settled."
            )
