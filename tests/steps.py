"""Training goes on through a removal: the step after it, held against the silenced whole model."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves

from secateur.structure import Decision, trace
from secateur.structure._trace import as_example
from secateur.surgery import cut_
from secateur.surgery._masked import silence_


def assert_training_goes_on(model: nn.Module, example: Any) -> None:
    """Take two Adam steps, remove half of the units of every family, and take another step.

    The gradients of a silenced unit's other slices are zero, those of everything else do not know
    whether a unit is silent or gone: what is left must move as it does in the whole model.
    """
    model.double().train()
    structure = trace(model, example)
    whole = copy.deepcopy(model)
    optimizers = [torch.optim.Adam(net.parameters(), lr=0.01) for net in (model, whole)]
    for net, optimizer in zip((model, whole), optimizers, strict=True):
        for _ in range(2):
            _step(net, optimizer, example)
    decision = Decision(
        units={
            number: torch.arange(0, family.num_units - 1, 2)
            for number, family in enumerate(structure.families)
            if family.num_units > 1
        }
    )
    assert decision
    live, edit = cut_(
        model, structure, structure.everything(), decision, optimizers=[optimizers[0]]
    )
    silence_(whole, structure, live)
    for net, optimizer in zip((model, whole), optimizers, strict=True):
        _step(net, optimizer, example)
    expected = dict(whole.named_parameters())
    for name, parameter in model.named_parameters():
        wanted = expected[name].detach()
        for axis, kept in edit.kept.get(name, {}).items():
            wanted = wanted.index_select(axis, torch.tensor(kept))
        assert_close(
            parameter.detach(), wanted, rtol=0, atol=1e-9, msg=lambda m, n=name: f"{n} {m}"
        )


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, example: Any) -> None:
    args, kwargs = as_example(example)
    optimizer.zero_grad()
    outputs = [o for o in tree_leaves(model(*args, **kwargs)) if isinstance(o, Tensor)]
    loss = sum(
        (o - torch.linspace(-1, 1, o.numel()).double().view(o.shape)).square().sum()
        for o in outputs
    )
    loss.backward()
    optimizer.step()
