"""Forwards that do something else in training mode than in evaluation mode."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from secateur import trace, verify
from secateur.structure import watched_mode


def _encoder():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


class _Momentum(nn.Module):
    """A second encoder follows the first one slowly, while training."""

    def __init__(self):
        super().__init__()
        self.query, self.key = _encoder(), _encoder()

    @torch.no_grad()
    def follow(self):
        for mine, other in zip(self.key.parameters(), self.query.parameters(), strict=True):
            mine.data = mine.data * 0.9 + other.data * 0.1

    def forward(self, x):
        if self.training:
            self.follow()
        return (self.query(x) * self.key(x)).sum(1)


def test_units_that_meet_in_training_mode_only_leave_together():
    (family,) = [f for f in trace(_Momentum(), torch.randn(2, 4)).families if f.num_units == 6]
    assert {member.tensor for member in family.members} >= {"query.0.weight", "key.0.weight"}
    assert verify(_Momentum(), torch.randn(2, 4)).num_units > 0


class _Targets(nn.Module):
    """Cannot run in training mode on the example."""

    def __init__(self):
        super().__init__()
        self.encoder = _encoder()

    def forward(self, x, targets=None):
        if self.training and targets is None:
            raise ValueError("no targets")
        return self.encoder(x)


def test_a_forward_that_cannot_train_on_the_example_is_traced_without():
    assert [family.num_units for family in trace(_Targets(), torch.randn(2, 4)).families] == [6]


@pytest.mark.parametrize(
    ("decide", "is_branch"),
    [
        (lambda m, x: x if m.training else -x, True),
        (lambda m, x: -x if not m.training else x, True),
        (lambda m, x: m.training and x, True),
        (lambda m, x: nn.functional.dropout(x, 0.5, m.training), False),
        (lambda m, x: nn.functional.dropout(x, 0.5 if m.training else 0.0), False),
        (lambda m, x: nn.functional.dropout(x, p=0 if not m.training else m.p), False),
        (lambda m, x: (x if m.training else m.p) * 2, True),
        (lambda m, x: m.eval()(x), False),
    ],
    ids=["if", "not", "and", "dropout", "number", "attribute", "value", "written"],
)
def test_a_branch_on_the_mode_is_noticed(decide, is_branch):
    module = nn.Identity()
    module.p = 0.5
    with watched_mode() as reads:
        decide(module, torch.ones(2))
    assert reads.has_branch is is_branch
    assert "training" not in vars(nn.Module)
    assert isinstance(vars(module)["training"], bool)


class _Dropped(nn.Module):
    """Leaves a layer out at random, while training."""

    def __init__(self):
        super().__init__()
        self.first, self.branch, self.last = nn.Linear(4, 6), _encoder(), nn.Linear(6, 2)
        self.back = nn.Linear(3, 6)

    def forward(self, x):
        x = self.first(x)
        if not self.training or random.random() + np.random.rand() < 1:  # noqa: NPY002
            x = x + self.back(self.branch(x[:, :4])) * (1 + random.random() * self.training)
        return self.last(x)


def test_what_a_forward_draws_is_drawn_again_by_every_trace_and_unseen():
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    for _ in range(5):
        assert verify(_Dropped(), torch.randn(2, 4)).num_units > 0
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
