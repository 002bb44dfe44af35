"""`redesign`: a network of widths that were found, with fresh weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.structure import Decision, Live, Structure, named_tensors, trace
from secateur.surgery._cut import cut_


def redesign(
    build: Callable[[], nn.Module],
    example_inputs: Any,
    found: Live | Mapping[str, int],
    *,
    initialise: Callable[[nn.Module], object] | None = None,
    allow_inexact: bool = False,
    head_dims: bool = False,
) -> nn.Module:
    """Build a network of found widths with fresh weights, to be trained from the start.

    The network is built whole and cut to size. Then its weights are drawn for the new sizes:
    by ``initialise`` if given, else by the modules' own ``reset_parameters``; what the builder had
    set to a constant, such as the scale of a norm, keeps it. Pass ``initialise`` where the builder
    draws weights in a way of its own. It carries no trace of the search, and `secateur.save` and
    `secateur.load` know it as ``build`` with structures removed.

    After Ding et al., ICML 2019 (arXiv 1905.04748): widths as the result of pruning.

    Args:
        build: Builds the whole network.
        example_inputs: What it is called with: a tensor, a tuple of positional arguments or a dict
            of keyword ones.
        found: What was left of the network, as ``session.live``; or numbers of units by the name of
            the family, where families that are not named stay whole.
        initialise: Draws the weights of the smaller network, in place.
        allow_inexact: As in the trace whose units were searched.
        head_dims: As in the trace whose units were searched.

    Returns:
        The network.

    Raises:
        UsageError: The widths are those of another network.

    Example:
        >>> def build():
        ...     return nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> redesign(build, torch.zeros(1, 8), {"0": 3})[0]
        Linear(in_features=8, out_features=3, bias=True)
    """
    model = build()
    structure = trace(model, example_inputs, allow_inexact=allow_inexact, head_dims=head_dims)
    gone = _gone(structure, found)
    constants = _constants(model)
    cut_(model, structure, structure.everything(), gone)
    if initialise is not None:
        initialise(model)
        return model
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
    with torch.no_grad():
        for name, tensor in named_tensors(model).items():
            if name in constants:
                tensor.fill_(constants[name])
    return model


def _gone(structure: Structure, found: Live | Mapping[str, int]) -> Decision:
    """Return what has to go; which units does not matter, as their weights are random."""
    names = [family.name for family in structure.families]
    sizes = {family.name: family.num_units for family in structure.families}
    fewest = {family.name: family.fewest for family in structure.families}
    if isinstance(found, Live):
        if [len(mask) for mask in found.units] != list(sizes.values()) or len(
            found.layers
        ) != structure.num_layers:
            raise UsageError(
                f"The found widths are of families of {[len(mask) for mask in found.units]} units "
                f"and {len(found.layers)} layers; `build` makes families of "
                f"{list(sizes.values())} units and {structure.num_layers} layers. Pass the builder "
                "of the network that was searched."
            )
        widths = dict(zip(names, found.counts.tolist(), strict=True))
        layers = tuple((~found.layers).nonzero().flatten().tolist())
    else:
        widths, layers = dict(found), ()
    for name, width in widths.items():
        if name not in sizes:
            raise UsageError(
                f"There is no family {name!r} in this network. Its families are "
                f"{', '.join(sizes) or 'none'}; `print(secateur.trace(model, example_inputs))` "
                "shows them."
            )
        if not fewest[name] <= width <= sizes[name]:
            raise UsageError(
                f"Family {name!r} was asked for with {width} units, and `build` makes "
                f"{sizes[name]}. Give a number from {fewest[name]} to that, or build a wider "
                "network."
            )
    units = {
        number: torch.arange(widths[name], sizes[name])
        for number, name in enumerate(names)
        if widths.get(name, sizes[name]) < sizes[name]
    }
    return Decision(units=units, layers=layers)


def _constants(model: nn.Module) -> dict[str, float]:
    """Return the parameters and buffers that hold one number throughout."""
    return {
        name: float(tensor.detach().flatten()[0])
        for name, tensor in named_tensors(model).items()
        if _is_constant(tensor)
    }


def _is_constant(tensor: Tensor) -> bool:
    return tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all())
