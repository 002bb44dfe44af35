"""Oracles: numpy's corrcoef, closed forms for whitened inputs, invariances of a correlation."""

import copy
import itertools
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from secateur.errors import UsageError
from secateur.methods.flows import InformationFlow


def whitened(samples, units):
    """Zero mean, X^T X / S = I."""
    x = torch.randn(samples, units).double()
    x = torch.linalg.qr(x - x.mean(dim=0)).Q
    x = torch.linalg.qr(x - x.mean(dim=0)).Q
    return x * samples**0.5


def passed_on(units):
    layer = nn.Linear(units, units).double()
    nn.init.eye_(layer.weight)
    return layer


def layers_of(net, x):
    """Outputs of every linear and convolutional layer, pooled, by an independent loop."""
    found = []
    for module in net:
        x = module(x)
        if isinstance(module, nn.Linear | nn.Conv2d):
            found.append(x.detach().flatten(2).mean(2) if x.dim() == 4 else x.detach())
    return [output.double().numpy() for output in found]


def correlations(net, x):
    """C_l for every pair of consecutive layers, by numpy."""
    outputs = layers_of(net, x)
    with np.errstate(invalid="ignore"):  # numpy gives NaN where a unit is constant
        return [
            np.corrcoef(a, b, rowvar=False)[: a.shape[1], a.shape[1] :]
            for a, b in itertools.pairwise(outputs)
        ]


def convnet():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 7, 3, padding=1), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 5, 3),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4), nn.Tanh(),
        nn.Linear(4, 6),
    ).double()  # fmt: skip


def images(samples=40):
    return torch.randn(samples, 3, 9, 9, generator=torch.Generator().manual_seed(5)).double()


def measured(net, *batches, **settings):
    return InformationFlow(net, batches, **settings).measure()


@pytest.mark.parametrize(
    ("reduce", "by_hand"), [("signed", np.mean), ("absolute", lambda c: np.abs(c).mean())]
)
def test_flow_is_the_mean_of_all_correlations(reduce, by_hand):
    net = convnet().eval()
    expected = [by_hand(matrix) for matrix in correlations(net, images())]
    flow = measured(net, images(), reduce=reduce)
    assert_close(flow, torch.tensor(expected), rtol=1e-9, atol=1e-12)


def test_absolute_flow_is_the_same_in_blocks(monkeypatch):
    import secateur.methods.flows._information as information

    whole = measured(convnet(), images(), reduce="absolute")
    monkeypatch.setattr(information, "ROWS", 2)
    assert_close(measured(convnet(), images(), reduce="absolute"), whole, rtol=1e-12, atol=0)


def test_whitened_inputs_give_the_normalised_weights():
    """C_ij = W_ji / ||W_j||, whatever the bias."""
    x = whitened(200, 6)
    second = nn.Linear(6, 4).double()
    rows = second.weight.detach()
    expected = (rows / rows.norm(dim=1, keepdim=True)).mean()
    flow = measured(nn.Sequential(passed_on(6), second), x)
    assert_close(flow, expected.reshape(1), rtol=1e-10, atol=0)


def test_circular_convolutions_give_the_normalised_sums_of_taps():
    """The mean over places of a circular convolution sees the kernel's sum only."""
    pooled = whitened(200, 5)
    detail = torch.randn(200, 5, 6, 6).double()
    x = pooled[:, :, None, None] + detail - detail.mean(dim=(2, 3), keepdim=True)
    first = nn.Conv2d(5, 5, 1).double()
    with torch.no_grad():
        first.weight.copy_(torch.eye(5)[:, :, None, None])
    second = nn.Conv2d(5, 3, 3, padding=1, padding_mode="circular").double()
    sums = second.weight.detach().sum(dim=(2, 3))
    expected = (sums / sums.norm(dim=1, keepdim=True)).mean()
    flow = measured(nn.Sequential(first, second), x)
    assert_close(flow, expected.reshape(1), rtol=1e-10, atol=0)


@pytest.mark.parametrize("weight", [0.3, -20.0])
def test_a_chain_of_single_units_flows_with_its_sign(weight):
    net = nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 1)).double()
    with torch.no_grad():
        net[1].weight.fill_(weight)
    flow = measured(net, torch.randn(50, 4).double())
    assert_close(flow, torch.tensor([1.0 if weight > 0 else -1.0]).double())


def test_a_layer_that_copies_correlates_fully_with_itself():
    """The diagonal of C is 1; with whitened inputs the rest is 0: 1 / N on average."""
    net = nn.Sequential(passed_on(6), passed_on(6))
    assert_close(measured(net, whitened(100, 6)), torch.tensor([1 / 6]).double())


def test_flow_does_not_depend_on_how_samples_are_grouped_and_ordered():
    x = images(40)
    expected = measured(convnet(), x)
    shuffled = x[torch.randperm(40)]
    assert_close(measured(convnet(), *shuffled.split([3, 17, 1, 19])), expected)


def changed(scale, shift):
    """The convnet with an affine map on what its second convolution gives out."""
    net = convnet().eval()
    plain = copy.deepcopy(net[3])
    with torch.no_grad():
        net[3].weight.copy_(plain.weight * scale[:, None, None, None])
        net[3].bias.copy_(plain.bias * scale + shift)
    net[4] = Undo(scale, shift)
    return net


class Undo(nn.Module):
    def __init__(self, scale, shift):
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x):
        return torch.relu((x - self.shift[:, None, None]) / self.scale[:, None, None])


def test_flow_does_not_see_positive_scales_and_shifts_of_units():
    scale = torch.tensor([1e-9, 1.0, 3.0, 0.2, 1e6]).double()
    shift = torch.tensor([0.0, 100.0, -3.0, 0.5, 0.1]).double()
    assert_close(
        measured(changed(scale, shift), images()), measured(convnet(), images()), rtol=1e-6, atol=0
    )


def test_flow_does_not_see_units_that_change_places():
    net, order = convnet(), torch.tensor([3, 0, 4, 1, 2])
    expected = measured(net, images())
    with torch.no_grad():
        net[3].weight.copy_(net[3].weight[order])
        net[3].bias.copy_(net[3].bias[order])
        net[7].weight.copy_(net[7].weight[:, order])
    assert_close(measured(net, images()), expected, rtol=1e-10, atol=1e-14)


def test_a_negative_scale_turns_the_sign_of_a_unit_s_row():
    scale = torch.tensor([1.0, 1.0, -2.0, 1.0, 1.0]).double()
    net = convnet().eval()
    first, second = correlations(net, images())[:2]
    first[:, 2] *= -1
    second[2] *= -1
    flow = measured(changed(scale, 0 * scale), images())
    assert_close(flow[:2], torch.tensor([first.mean(), second.mean()]))


def test_flow_lies_within_one():
    for seed in range(20):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1), nn.Linear(1, 3))
        flow = measured(net, torch.randn(30, 3))
        assert bool((flow.abs() <= 1 + 1e-5).all())


def with_constant(value, units=(1,)):
    """Units whose weights are zero and whose bias is not, as sparse networks have them."""
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        for unit in units:
            net[0].weight[unit] = 0
            net[0].bias[unit] = value
    return net


@pytest.mark.parametrize("value", [0.1, 0.3, 7.7, 1234.567])
def test_a_unit_that_is_constant_contributes_nothing(value):
    """In float32 and 50,000 samples E[x^2] - E[x]^2 is negative for every second constant."""
    x = torch.randn(50_000, 4)
    net = with_constant(value)
    flow = measured(net, *x.split(4096))
    varying = correlations(copy.deepcopy(net).double(), x.double())[0][[0, 2]]
    assert_close(flow.double(), torch.tensor([varying.sum() / 6]), rtol=1e-3, atol=1e-5)
    alive = measured(net, *x.split(4096), over="alive")
    assert_close(alive.double(), torch.tensor([varying.sum() / 4]), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("over", ["all", "alive"])
def test_a_layer_of_constant_units_has_no_flow(over):
    net = with_constant(0.3, units=(0, 1, 2))
    assert measured(net, torch.randn(100, 4), over=over).tolist() == [0.0]


def test_independent_layers_have_flow_of_the_order_of_one_over_the_root_of_samples():
    class Apart(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(4, 5), nn.Linear(4, 5)

        def forward(self, x, y):
            return self.first(x), self.second(y)

    flow = measured(Apart(), (torch.randn(10_000, 4), torch.randn(10_000, 4)))
    assert 0 < float(flow.abs()) < 5 / 100


def test_what_is_not_finite_shows():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight.data[0, 0] = float("nan")
    assert bool(measured(net, torch.randn(9, 3)).isnan().all())


def test_a_measurement_leaves_no_trace_and_a_second_gives_the_same_bits():
    net = convnet()
    net.append(nn.Dropout(0.5))
    net[1].eval()  # a mixture of modes
    net[0].weight.grad = torch.randn_like(net[0].weight)
    grad = net[0].weight.grad.clone()
    flow = InformationFlow(net, [images()])
    first = flow.measure()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    memory = flow._outputs._buffer_SA.data_ptr()
    for _ in range(20):
        assert torch.equal(flow.measure(), first)
    assert flow._outputs._buffer_SA.data_ptr() == memory
    assert [module.training for module in net] == [True, False, *[True] * 9]
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(net[0].weight.grad, grad)
    assert all(torch.equal(state[n], value) for n, value in net.state_dict().items())
    assert all(not module._forward_hooks for module in net.modules())


def test_noise_and_counters_of_a_forward_in_evaluation_are_put_back():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 2), nn.Linear(2, 2)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls += 1
            return self.second(self.first(x) + torch.randn(1))

    net = Noisy()
    random = torch.get_rng_state()
    measured(net, torch.randn(9, 3))
    torch.set_rng_state(random)
    measured(net, torch.ones(9, 3))
    assert torch.equal(torch.get_rng_state(), random)
    assert float(net.calls) == 0


def test_what_modules_keep_in_evaluation_mode_is_forgotten():
    """As in LeViT: a cache made in one measurement would stand for the weights in the next."""

    class Caching(nn.Linear):
        cache = None

        def forward(self, x):
            self.cache = self.weight * 1 if self.cache is None else self.cache
            return nn.functional.linear(x, self.cache, self.bias)

        def train(self, mode=True):
            self.cache = None if mode else self.cache
            return super().train(mode)

    net = nn.Sequential(Caching(3, 2, bias=False), nn.Linear(2, 1))
    flow = InformationFlow(net, [torch.randn(9, 3)])
    first = flow.measure()
    net[0].weight.data[0] *= -1
    fresh = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 1))
    fresh.load_state_dict(net.state_dict())
    second = flow.measure()
    assert torch.equal(second, InformationFlow(fresh, flow._outputs._batches).measure())
    assert not torch.equal(second, first)


def test_layers_stand_in_the_order_of_their_calls_and_may_be_called_twice():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(4, 2), nn.Linear(3, 4)
            self.twice = nn.Linear(4, 4)

        def forward(self, x):
            return self.last(self.twice(self.twice(self.first(x)).relu()))

    flow = InformationFlow(Backwards(), [torch.randn(9, 3)])
    assert flow.measure().shape == (3,)
    assert flow.names == ("first", "twice", "twice", "last")


def test_named_layers_leave_a_shortcut_out():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.shortcut = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            return self.two(self.one(x).relu()) + self.shortcut(x)

    flow = InformationFlow(Block(), [torch.randn(9, 3, 5, 5)], layers=["one", "two"])
    flow.measure()
    assert flow.names == ("one", "two")


def test_tokens_and_windows_are_averaged_by_sample():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(4, 3), nn.Linear(3, 2)

        def forward(self, x):  # [B, T, 4], in windows of two tokens
            windows = self.one(x.reshape(-1, 2, 4))
            return self.two(windows).reshape(len(x), -1, 2)

    net, x = Windows().double(), torch.randn(20, 6, 4).double()
    a = net.one(x).mean(dim=1).detach()
    b = net.two(net.one(x)).mean(dim=1).detach()
    expected = np.corrcoef(a, b, rowvar=False)[:3, 3:].mean()
    assert_close(measured(net, {"x": x}), torch.tensor([expected]))


def test_lower_precision_is_measured_in_float32():
    net = convnet().float()
    with torch.autocast("cpu", torch.bfloat16):
        flow = measured(net, images(300).float())
    assert flow.dtype == torch.float32
    assert_close(flow, measured(net, images(300).float()), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: InformationFlow(convnet(), [images()], reduce="mean"),
            "InformationFlow got reduce='mean' and over='all'. reduce is 'signed' or 'absolute', "
            "over is 'all' or 'alive'.",
        ),
        (
            lambda: InformationFlow(convnet(), [images()], layers=["2"]),
            "layers names '2', which is not a linear or convolutional module of this Sequential. "
            "Use paths as in `dict(model.named_modules())`.",
        ),
        (
            lambda: InformationFlow(convnet(), [images(1)]),
            "The inputs hold 1 sample(s), and a correlation needs at least 2; a few thousand give "
            "a steady one. Pass a list of batches that the model takes.",
        ),
        (
            lambda: InformationFlow(convnet(), [("no", "tensor")]),
            "One of the batches is tuple without a tensor in it. Pass what the model takes: a "
            "tensor, a tuple of arguments or a dict of them, samples first.",
        ),
        (
            lambda: measured(nn.Sequential(nn.Linear(3, 2)), torch.randn(5, 3)),
            "This Sequential calls 1 of the chosen layers, and a flow goes from one layer to the "
            "next. It needs at least two linear or convolutional modules that are called as "
            "modules.",
        ),
        (
            lambda: measured(
                nn.Sequential(nn.Linear(3, 2), nn.Flatten(0), nn.Linear(10, 1)), torch.randn(5, 3)
            ),
            "2 gives out [1] (rows, units) for 5 samples: the first axis does not hold the "
            "samples. Leave it out with layers=[...].",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(make, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        make()


def test_inputs_that_call_other_layers_are_refused():
    class Routed(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            return self.two(self.one(x)) if bool(x.sum() > 0) else self.three(self.one(x))

    message = (
        "The first inputs call the layers one, two, and others call one, three: their outputs "
        "cannot be paired. Name with layers=[...] those that every input goes through."
    )
    net = Routed()
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        measured(net, torch.ones(5, 3), -torch.ones(5, 3))
    assert all(not module._forward_hooks for module in net.modules())
