"""Oracles: derivatives on paper, and a loop of ordinary backward passes."""

import re

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from secateur.errors import UsageError
from secateur.masks import Masks
from secateur.methods.flows import GradientFlow


def cross_entropy(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def small_net():
    return nn.Sequential(
        nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3)
    ).double()


def batches(count=3, size=7):
    return [(torch.randn(size, 5).double(), torch.randint(3, (size,))) for _ in range(count)]


def by_backward(net, data, stat):
    """The definition, with .grad."""
    net.eval()
    names = ["0.weight", "4.weight"]
    rows = []
    for batch in data:
        net.zero_grad()
        cross_entropy(net, batch).backward()
        rows.append([stat(dict(net.named_parameters())[name].grad) for name in names])
    net.zero_grad()
    net.train()
    return torch.tensor(rows, dtype=torch.float64).mean(dim=0)


def least_squares(x, y, w):
    """L = mean (w x - y)^2 / 2."""
    net = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        net.weight.fill_(w)
    data = [(a.double()[:, None], b.double()[:, None]) for a, b in zip(x, y, strict=True)]
    return GradientFlow(net, data, lambda m, b: (m(b[0]) - b[1]).square().mean() / 2)


def test_scalar_least_squares():
    """|mean x (w x - y)|: x = 1, 2, y = 1, 0, w = 2: (1 (2 - 1) + 2 (4 - 0)) / 2 = 4.5."""
    flow = least_squares([torch.tensor([1.0, 2.0])], [torch.tensor([1.0, 0.0])], w=2.0)
    assert flow.measure().tolist() == [4.5]


def test_batches_are_averaged_after_the_absolute_value():
    """The same with opposite signs: (4.5 + 1.5) / 2. Second: x = 1, y = 3.5, w = 2: -1.5."""
    x = [torch.tensor([1.0, 2.0]), torch.tensor([1.0])]
    y = [torch.tensor([1.0, 0.0]), torch.tensor([3.5])]
    assert least_squares(x, y, w=2.0).measure().tolist() == [3.0]


def test_there_is_no_flow_at_the_optimum():
    x = torch.tensor([1.0, 2.0, -1.0])
    assert least_squares([x], [3 * x], w=3.0).measure().tolist() == [0.0]


@pytest.mark.parametrize(
    ("name", "stat"), [("mean_abs", lambda g: g.abs().mean()), ("l2", lambda g: g.norm())]
)
def test_flow_is_that_of_a_loop_of_backward_passes(name, stat):
    net, data = small_net(), batches()
    expected = by_backward(net, data, stat)
    flow = GradientFlow(net, data, cross_entropy, stat=name)
    assert flow.names == ("0.weight", "4.weight")
    assert_close(flow.measure(), expected, rtol=1e-12, atol=0)


def test_gradients_left_by_training_are_neither_read_nor_changed():
    net = small_net()
    flow = GradientFlow(net, batches(), cross_entropy)
    before = flow.measure()
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 1e3)
    assert torch.equal(flow.measure(), before)
    assert all(bool((p.grad == 1e3).all()) for p in net.parameters())


def test_a_measurement_leaves_no_trace():
    net = small_net()
    net[1].eval()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    flow = GradientFlow(net, batches(), cross_entropy)
    torch.set_rng_state(random)
    with torch.no_grad():
        flow.measure()
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in net] == [True, False, True, True, True]
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(state[n], value) for n, value in net.state_dict().items())


@pytest.mark.parametrize("stat", ["mean_abs", "l2"])
def test_the_scale_of_the_loss_is_that_of_the_flow(stat):
    net, data = small_net(), batches()
    plain = GradientFlow(net, data, cross_entropy, stat=stat).measure()
    scaled = GradientFlow(net, data, lambda m, b: -3 * cross_entropy(m, b), stat=stat).measure()
    assert_close(scaled, 3 * plain)


def test_masked_entries_count_as_zero_or_not_at_all():
    """y = sum of 4 weights times x: gradients 1, 2, 3, 4, of which 2 and 4 are masked."""
    net = nn.Linear(4, 1, bias=False)
    masks = Masks(net, torch.optim.SGD(net.parameters(), lr=0.1))
    masks.set_({"weight": torch.tensor([[True, False, True, False]])})
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])

    def value(**settings):
        flow = GradientFlow(net, [x], lambda m, b: m(b).sum(), masks=masks, **settings)
        return flow.measure().item()

    assert value() == (1 + 3) / 4
    assert value(over="alive") == (1 + 3) / 2
    assert value(stat="l2") == pytest.approx(10**0.5)
    masks.set_({"weight": torch.zeros(1, 4, dtype=torch.bool)})
    assert value(over="alive") == 0.0


def test_a_tensor_that_the_loss_does_not_reach_has_no_flow():
    net = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    flow = GradientFlow(net, [torch.ones(1, 2)], lambda m, b: m[0](b).sum())
    assert flow.measure().tolist() == [1.0, 0.0]


def test_frozen_tensors_are_left_out():
    net = small_net()
    net[0].weight.requires_grad_(False)
    assert GradientFlow(net, batches(), cross_entropy).names == ("4.weight",)


@pytest.mark.parametrize(
    ("settings", "data", "message"),
    [
        (
            {"stat": "mean"},
            batches(),
            "GradientFlow got stat='mean' and over='all'. stat is 'mean_abs' or 'l2', over is "
            "'all' or 'alive'.",
        ),
        (
            {},
            [],
            "GradientFlow got 0 batches and 2 weight tensors that require a gradient. It needs at "
            "least one of each.",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(settings, data, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        GradientFlow(small_net(), data, cross_entropy, **settings)
