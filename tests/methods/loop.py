"""A training loop that zeroes slices itself: independent of the floor that hides structures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from secateur.methods import Draw
from secateur.structure import Structure


def close(model: nn.Module, structure: Structure, on_U: Tensor, on_L: Tensor) -> dict[str, Tensor]:
    """Zero the gate slices of everything that is off; return the untouched weights."""
    tensors = dict(model.named_parameters())
    kept: dict[str, Tensor] = {}
    for start, family in zip(structure.offsets, structure.families, strict=False):
        for member in family.members:
            if member.consumes:
                off = (~on_U[start : start + family.num_units]).nonzero().flatten()
                weight = tensors[member.tensor]
                kept.setdefault(member.tensor, weight.data.clone())
                weight.data.index_fill_(member.axis, member.index[off].flatten(), 0.0)
    for layer, on in zip(structure.layers, on_L.tolist(), strict=True):
        for name in layer.closing:
            kept.setdefault(name, tensors[name].data.clone())
            if not on:
                tensors[name].data.zero_()
    return kept


def restore(model: nn.Module, kept: dict[str, Tensor]) -> None:
    tensors = dict(model.named_parameters())
    for name, value in kept.items():
        tensors[name].data.copy_(value)


def gate_gradients(
    model: nn.Module, structure: Structure, kept: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Sum of weight times gradient over every structure's gate slices."""
    grads = {name: p.grad for name, p in model.named_parameters()}
    product = {name: kept[name] * grads[name] for name in kept}
    units = []
    for family in structure.families:
        total = torch.zeros(family.num_units, dtype=next(iter(kept.values())).dtype)
        for member in family.members:
            if member.consumes:
                value = product[member.tensor].movedim(member.axis, 0).flatten(1).sum(dim=1)
                total += value[member.index].sum(dim=1)
        units.append(total)
    layers = [
        sum((product[name].sum() for name in layer.closing), torch.zeros(()))
        for layer in structure.layers
    ]
    return torch.cat(units), torch.stack(layers) if layers else torch.zeros(0)


def train(
    model: nn.Module,
    structure: Structure,
    search,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor],
    batches: Iterator[tuple[Tensor, Tensor]],
    num_steps: int,
    after_step: Callable[[int], None] = lambda step: None,
) -> None:
    """Train; what is removed is hidden for good instead of sliced out."""
    num_units = structure.num_units
    live = structure.everything()
    all_on = Draw(
        units_U=torch.ones(num_units, dtype=torch.bool),
        layers_L=torch.ones(structure.num_layers, dtype=torch.bool),
    )
    for step in range(num_steps):
        inputs, targets = next(batches)
        draw = search.draw()
        gates = draw or all_on
        units_U, layers_L = gates.units_U & torch.cat(live.units), gates.layers_L & live.layers
        kept = close(model, structure, units_U, layers_L)
        value = loss(model, inputs, targets)
        optimizer.zero_grad()
        value.backward()
        probe = search.probe()
        if probe is not None:
            before = {name: tensor.clone() for name, tensor in model.named_buffers()}
            close(model, structure, units_U & probe.units_U, layers_L & probe.layers_L)
            with torch.no_grad():
                search.observe_probe(probe, float(loss(model, inputs, targets) - value))
            for name, tensor in model.named_buffers():
                tensor.copy_(before[name])
        units, layers = gate_gradients(model, structure, kept)
        restore(model, kept)
        _zero_closed_gradients(model, structure, units_U, layers_L)
        search.observe(units, layers, draw, len(inputs))
        optimizer.step()
        decision = search.decide()
        if search.should_cut(live, decision):
            live = live.without(decision)
            search.removed(decision)
        after_step(step)
    close(model, structure, torch.cat(live.units), live.layers)


def _zero_closed_gradients(
    model: nn.Module, structure: Structure, on_U: Tensor, on_L: Tensor
) -> None:
    tensors = dict(model.named_parameters())
    for start, family in zip(structure.offsets, structure.families, strict=False):
        off = (~on_U[start : start + family.num_units]).nonzero().flatten()
        for member in family.members:
            if member.consumes:
                grad = tensors[member.tensor].grad
                grad.index_fill_(member.axis, member.index[off].flatten(), 0.0)
    for layer, on in zip(structure.layers, on_L.tolist(), strict=True):
        for name in layer.closing if not on else ():
            tensors[name].grad.zero_()
