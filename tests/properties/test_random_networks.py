"""What must hold on any network: removal is exact, and the cost model counts right."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

from secateur import trace, verify
from secateur.errors import NothingRemovableError
from secateur.structure import Decision
from secateur.surgery import cut_
from tests.counting import counted_macs
from tests.properties.architectures import networks

_ANY = settings(
    max_examples=220,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
_EXAMPLE = (2, 3, 4, 4)


@_ANY
@given(networks())
def test_what_is_removed_is_exactly_what_was_silenced(network: nn.Module) -> None:
    try:
        result = verify(network, torch.randn(_EXAMPLE))
    except NothingRemovableError:
        return
    assert result.difference <= 1e-10


@_ANY
@given(networks())
def test_macs_and_parameters_are_counted_before_and_after_a_removal(network: nn.Module) -> None:
    example = torch.randn(_EXAMPLE)
    structure = trace(network, example)
    cost = structure.cost
    assert cost.macs.value() == pytest.approx(counted_macs(network, example), rel=1e-9)
    assert cost.params.value() == sum(p.numel() for p in network.parameters())
    units = {
        number: torch.arange(0, family.num_units - 1, 2)
        for number, family in enumerate(structure.families)
        if family.num_units > 1
    }
    decision = Decision(units=units, layers=tuple(range(0, structure.num_layers, 2)))
    small = copy.deepcopy(network)
    live, _ = cut_(small, structure, structure.everything(), decision)
    macs = cost.macs.value(live.counts, live.layers)
    params = cost.params.value(live.counts, live.layers)
    assert macs == pytest.approx(counted_macs(small, example), rel=1e-9)
    assert params == sum(p.numel() for p in small.parameters())
