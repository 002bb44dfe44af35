"""Forwards that ask what a tensor holds: what follows from numbers is followed, data is refused."""

import pytest
import torch
from torch import nn

from secateur import trace, verify
from secateur.errors import TraceError


class Net(nn.Module):
    """Two hidden layers; `between` is run between them, and may look at buffers."""

    def __init__(self, between):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 2)
        self.between = between
        self.register_buffer("mask", torch.tensor([True, False, True, True]))
        self.register_buffer("count", torch.tensor(3))

    def forward(self, x, *rest):
        return self.out(self.b(self.between(self, self.a(x), *rest)).tanh())


X = torch.randn(2, 4, 5)
MASK = torch.tensor([[True, False, True, True], [False, True, True, False]])


def assigned(x, index, value):
    x = x.clone()
    x[index] = value
    return x


def scattered(x, mask):
    out = torch.zeros_like(x)
    out[mask] = x[mask] * 2
    return out


def sliced(x, lengths):
    return torch.cat([t[:n] for t, n in zip(x, lengths.tolist(), strict=True)])


def unique(x, ids):
    found, back = torch.unique(ids, return_inverse=True)
    return x[:, : len(found)][:, back]


FOLLOWED = {
    "shape": (lambda net, x: x.relu() if x.shape[1] > 3 else x, (X,), 8),
    "mask of a buffer": (lambda net, x: x[:, net.mask], (X,), 6),
    "mask that is an input": (lambda net, x, m: x[m], (X, MASK), 5),
    "nonzero": (lambda net, x: x[:, net.mask.nonzero().flatten()], (X,), 6),
    "where": (lambda net, x: x[:, torch.where(net.mask)[0]], (X,), 6),
    "number of a buffer": (lambda net, x: x[:, : int(net.count)], (X,), 6),
    "list of numbers": (lambda net, x, n: sliced(x, n), (X, torch.tensor([2, 3])), 5),
    "unique": (lambda net, x, ids: unique(x, ids), (X, torch.tensor([3, 1, 3])), 6),
    "assigned by a mask": (lambda net, x, m: assigned(x, m, 0.5), (X, MASK), 8),
    "assigned by a slice": (lambda net, x: assigned(x, (slice(None), 1), 0.5), (X,), 8),
    "assigned by a mask of data": (lambda net, x: assigned(x, x > 0.1, 0.5), (X,), None),
    "scattered": (lambda net, x, m: scattered(x, m), (X, MASK), 8),
}


@pytest.mark.parametrize("case", FOLLOWED)
def test_what_follows_from_numbers_and_masks_of_tokens_is_followed(case):
    between, example, tokens = FOLLOWED[case]
    structure = trace(Net(between), example)
    sizes = [f.num_units for f in structure.families]
    if tokens is None:
        assert sizes == [6]
        return
    assert sizes == [8, 6]
    macs = 8 * 5 * 8 + tokens * (8 * 6 + 6 * 2)
    assert structure.cost.macs.value() == macs
    assert verify(Net(between), example).num_units == 7


def test_channels_picked_by_a_mask_are_fixed():
    structure = trace(Net(lambda net, x: assigned(x, (..., torch.arange(8) % 2 == 0), 0.0)), X)
    assert [f.num_units for f in structure.families] == [6]


def _checked(x):
    if torch.isnan(x).any() or x.isinf().any():
        raise ValueError("diverged")
    if not torch.isfinite(x).all():
        raise ValueError("diverged")
    return x


def _sampled(x):
    return torch.distributions.Normal(x, x.exp()).rsample()


@pytest.mark.parametrize("between", [_checked, _sampled])
def test_questions_whether_numbers_are_finite_fix_nothing(between):
    model = Net(lambda net, x: between(x))
    before = torch.distributions.Distribution._validate_args
    torch.distributions.Distribution.set_default_validate_args(True)
    try:
        assert [f.num_units for f in trace(model, X).families] == [8, 6]
        assert verify(model, X).num_units == 7
        assert torch.distributions.Distribution._validate_args
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


def test_a_number_of_data_may_be_kept_and_printed():
    def between(net, x):
        net.log = f"{x[..., :1].max().item() / 2 + 1:.2f} {round(-x.sum().item(), 2)}"
        return x

    assert [f.num_units for f in trace(Net(between), X).families] == [6]
    assert not hasattr(Net(between), "log")


REFUSED = {
    "branch on an item": (lambda net, x: x + 1 if x.sum().item() > 0 else x, "Python number"),
    "truth of an item": (lambda net, x: x if x.max().item() else -x, "Python number is read"),
    "scaled by an item": (lambda net, x: x * (1 + x.mean().item()), "Python number is read from"),
    "cut at an item": (lambda net, x: x[:, : int(x.amax().item())], "Python number is read from"),
    "counted to an item": (lambda net, x: next(x for _ in range(x.amax().item())), "Python number"),
    "branch": (lambda net, x: x + 1 if x.sum() > 0 else x, "a Python number is read from"),
    "numpy": (lambda net, x: x * float(x.detach().numpy().max()), "a Python number is read from"),
    "mask": (lambda net, x: x[x.sum(-1) > 0], "the shape of a result depends on the data"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_depends_on_data_is_refused_with_its_line_and_an_advice(case):
    between, message = REFUSED[case]
    with pytest.raises(TraceError, match=message) as caught:
        trace(Net(between), X)
    line = between.__code__.co_firstlineno
    assert f"{__file__}:{line}" in str(caught.value)
    assert "trace the part of the model" in str(caught.value)


def through_a_view(net, x):
    marks = torch.zeros(4)
    part = marks[1:3]
    part.add_(1)
    return x.relu() if marks.sum() > 1 else x[:, :1]


def in_place(net, x):
    marks = torch.zeros(4, dtype=torch.bool)
    marks[1:3] = True
    return x.relu() if marks.any() else x[:, :1]


@pytest.mark.parametrize("between", [through_a_view, in_place])
def test_what_is_written_in_place_is_seen_by_later_questions(between):
    structure = trace(Net(between), X)
    assert structure.cost.macs.value() == 8 * (5 * 8 + 8 * 6 + 6 * 2)


def test_what_is_overwritten_with_data_is_no_longer_known():
    def between(net, x):
        marks = torch.zeros(4)
        marks[1:3].copy_(x[0, 0, :2])
        return x.relu() if marks.sum() > 1 else x

    with pytest.raises(TraceError, match="a Python number is read from computed data"):
        trace(Net(between), X)


def test_a_forward_that_counts_its_calls_leaves_the_model_and_the_input_alone():
    def between(net, x, steps):
        net.count += 1
        steps.zero_()
        return x.relu() if net.count > 3 and not steps.any() else x[:, :1]

    model, steps = Net(between), torch.ones(3, dtype=torch.int64)
    assert trace(model, (X, steps)).cost.macs.value() == 8 * (5 * 8 + 8 * 6 + 6 * 2)
    assert int(model.count) == 3
    assert steps.tolist() == [1, 1, 1]


class OwnOperation(nn.Module):
    """Calls an operation that somebody else registered, and that only runs on real data."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 6)

    def forward(self, x):
        return torch.ops.secateur_test.keep_positive(self.body(x))


def test_an_operation_that_cannot_run_without_data_is_named_with_an_advice():
    with torch.library._scoped_library("secateur_test", "FRAGMENT") as library:
        library.define("keep_positive(Tensor x) -> Tensor")
        library.impl("keep_positive", lambda x: x[x > 0], "CPU")
        net = OwnOperation()
        assert net(torch.randn(3, 4)).ndim == 1
        message = r"without a rule cannot run.*secateur_test\.keep_positive.*Trace the part"
        with pytest.raises(TraceError, match=message):
            trace(net, torch.randn(3, 4))


@pytest.mark.parametrize("enabled", [False, True])
def test_autocast_on_the_device_of_a_tensor_is_followed(enabled):
    def between(net, x):
        with torch.autocast(device_type=x.device.type, enabled=enabled):
            return x.relu()

    net, before = Net(between), torch.autocast.__init__
    assert trace(net, X).num_units == 14
    assert verify(net, X).difference <= 1e-10
    assert torch.autocast.__init__ is before


def test_an_assertion_without_a_message_fixes_what_it_is_about():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.middle, self.last = nn.Linear(3, 4), nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x):
            x = self.first(x)
            if x.shape[1] != 4:
                raise AssertionError  # as an assertion does that says nothing
            n = x.shape[1] // 2
            return self.last(self.middle(torch.cat([x[:, n:], x[:, :n]], 1)).relu())

    structure = trace(Net(), torch.randn(2, 3))
    assert [family.name for family in structure.families] == ["middle"]
    assert "AssertionError without a message" in str(structure.explain("first.bias"))
