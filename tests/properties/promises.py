"""What secateur promises of every network, checked on one."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import secateur
from secateur import trace, verify
from secateur.errors import NothingRemovableError
from secateur.structure import Decision, Structure
from secateur.surgery import cut_
from tests.counting import counted_macs


@dataclass(frozen=True)
class Kept:
    """What there was to check.

    Attributes:
        num_units: Removable units.
        num_layers: Removable layers.
        free_share: Part of the parameters that lie on a removable axis or in a removable layer.
    """

    num_units: int
    num_layers: int
    free_share: float


def check_promises(
    build: Callable[[], nn.Module], example: Tensor, *, head_dims: bool = False
) -> Kept:
    """Trace, remove, count, save and load; whatever is wrong raises.

    Args:
        build: Makes the network, with equal weights every time.
        example: Its input.
        head_dims: Whether positions inside heads are units.

    Returns:
        How much there was to remove.
    """
    structure = trace(build(), example, head_dims=head_dims)
    _check_counts(build(), example, structure)
    inexact = trace(build(), example, allow_inexact=True)
    if inexact.num_units > structure.num_units:
        assert verify(build(), example, allow_inexact=True).difference <= 1e-10
    try:
        assert verify(build(), example, head_dims=head_dims).difference <= 1e-10
    except NothingRemovableError:
        return Kept(0, 0, 0.0)
    return Kept(structure.num_units, structure.num_layers, _free_share(structure))


def _check_counts(network: nn.Module, example: Tensor, structure: Structure) -> None:
    """Hold the cost model and a saved network against what is measured, before and after."""
    cost = structure.cost
    assert cost.macs.value() == pytest.approx(counted_macs(network, example), rel=1e-9)
    assert cost.params.value() == sum(p.numel() for p in network.parameters())
    small = copy.deepcopy(network)
    live, _ = cut_(small, structure, structure.everything(), _every_second(structure))
    counted = counted_macs(small, example)
    assert cost.macs.value(live.counts, live.layers) == pytest.approx(counted, rel=1e-9)
    num_parameters = sum(p.numel() for p in small.parameters())
    assert cost.params.value(live.counts, live.layers) == num_parameters
    with tempfile.TemporaryDirectory() as folder:
        secateur.save(small, folder)
        loaded = secateur.load(lambda: copy.deepcopy(network), folder)
    with torch.no_grad():
        assert_close(loaded.eval()(example), small.eval()(example), rtol=0.0, atol=0.0)


def _every_second(structure: Structure) -> Decision:
    """Take every second unit and leave two: einsum makes a product over one a pointwise one."""
    units = {
        number: torch.arange(0, family.num_units - 2, 2)
        for number, family in enumerate(structure.families)
        if family.num_units > 2
    }
    return Decision(units=units, layers=tuple(range(0, structure.num_layers, 2)))


def _free_share(structure: Structure) -> float:
    free = {m.tensor for family in structure.families for m in family.members}
    free |= {name for layer in structure.layers for name in layer.tensors}
    sizes = {n: torch.Size(i.shape).numel() for n, i in structure.tensors.items() if i.is_parameter}
    return sum(size for name, size in sizes.items() if name in free) / sum(sizes.values())
