"""Which parameters hold weights that are masked one by one: those of affine modules."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.nn.modules.conv import _ConvNd

from secateur.errors import UsageError

# Prefixes of the parameters that multiply what comes in; biases add to it.
WEIGHTS: tuple[tuple[type[nn.Module], tuple[str, ...]], ...] = (
    (nn.Linear, ("weight",)),
    (_ConvNd, ("weight",)),
    (nn.Bilinear, ("weight",)),
    (nn.MultiheadAttention, ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")),
    (nn.RNNBase, ("weight_",)),
    (nn.RNNCellBase, ("weight_",)),
)


def maskable(model: nn.Module, names: Iterable[str] | None = None) -> dict[str, nn.Parameter]:
    """List the parameters whose entries can be masked.

    Without names these are the weights of linear, convolutional, attention and recurrent modules:
    no biases, norms, embeddings or positions. A weight that several modules share is listed once,
    under its first name.

    Args:
        model: Any module.
        names: Qualified names of other parameters, or of some of these; None for all of these.

    Returns:
        Qualified name to parameter, in the order of ``model.named_parameters()``.

    Raises:
        UsageError: A name is not that of a floating-point parameter, or there is nothing to mask.
    """
    own = dict(model.named_parameters())
    if names is None:
        wanted = _affine_weights(model)
        found = {name: parameter for name, parameter in own.items() if id(parameter) in wanted}
    else:
        found = _named(model, own, list(names))
    if not found:
        raise UsageError(
            f"Nothing in this {type(model).__name__} can be masked: it has no linear, "
            "convolutional, attention or recurrent module. Name the parameters with names=[...]."
        )
    return found


def _affine_weights(model: nn.Module) -> set[int]:
    return {
        id(parameter)
        for module in model.modules()
        for kind, prefixes in WEIGHTS
        if isinstance(module, kind)
        for name, parameter in module.named_parameters(recurse=False)
        if name.startswith(prefixes)
    }


def _named(
    model: nn.Module, own: dict[str, nn.Parameter], names: list[str]
) -> dict[str, nn.Parameter]:
    with_ties = dict(model.named_parameters(remove_duplicate=False))
    for name in names:
        parameter = with_ties.get(name)
        if parameter is None or not parameter.is_floating_point():
            what = "is not" if parameter is None else f"is {parameter.dtype}, not"
            raise UsageError(
                f"{name!r} {what} a floating-point parameter of this {type(model).__name__}. "
                "Use qualified names as in `dict(model.named_parameters())`."
            )
    wanted = {id(with_ties[name]) for name in names}
    return {name: parameter for name, parameter in own.items() if id(parameter) in wanted}
