"""Mixtures of experts: hidden units leave all experts at once, and whole experts leave."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur import trace, verify
from secateur.errors import SurgeryError
from secateur.structure import Decision
from secateur.surgery import cut_


class _Experts(nn.Module):
    """Five experts whose weights are stacked, two for each token."""

    def __init__(self, count=5, chosen=2):
        super().__init__()
        self.count, self.chosen = count, chosen
        self.gate = nn.Linear(8, count)
        self.up = nn.Parameter(torch.randn(count, 24, 8) / 4)
        self.down = nn.Parameter(torch.randn(count, 8, 24) / 4)

    def forward(self, x):
        weights, chosen = self.gate(x).softmax(-1).topk(self.chosen, -1)
        return self.mixed(x, weights / weights.sum(-1, keepdim=True), chosen)


class _Grouped(_Experts):
    """Sorts tokens by expert and multiplies groups of rows."""

    def ends(self, chosen):
        return F.one_hot(chosen.flatten(), self.count).sum(0).cumsum(0).int()

    def mixed(self, x, weights, chosen):
        order = chosen.flatten().argsort(stable=True)
        ends = self.ends(chosen)
        rows = x[order // self.chosen]
        hidden = torch._grouped_mm(rows, self.up.transpose(1, 2), offs=ends).relu()
        rows = torch._grouped_mm(hidden, self.down.transpose(1, 2), offs=ends)
        rows = rows * weights.flatten()[order, None]
        return rows[order.argsort()].unflatten(0, (-1, self.chosen)).sum(1)


class _Counted(_Grouped):
    """Counts the rows of each expert with a histogram."""

    def ends(self, chosen):
        numbers = chosen.flatten().sort().values.float()
        return torch.histc(numbers, bins=self.count, min=0, max=self.count - 1).cumsum(0).int()


class _Looping(_Experts):
    """Goes through the experts that were hit, and adds rows where they belong."""

    def classes(self):
        return self.count

    def is_expert(self, number):
        return True

    def mixed(self, x, weights, chosen):
        result = torch.zeros_like(x)
        hits = F.one_hot(chosen, self.classes()).permute(2, 1, 0)
        for (number,) in hits.sum((1, 2)).greater(0).nonzero():
            if self.is_expert(number):
                place, token = torch.where(hits[number])
                hidden = F.linear(x[token], self.up[number]).relu()
                rows = F.linear(hidden, self.down[number]) * weights[token, place, None]
                result.index_add_(0, token, rows)
        return result


class _LoopingPastTheLast(_Looping):
    """Has a number for no expert at all, as the forwards that spread experts over devices do."""

    def classes(self):
        return self.count + 1

    def is_expert(self, number):
        return number != self.count


class _LoopingOverFive(_Looping):
    """Writes the number of experts down as it was."""

    def classes(self):
        return 5


class _Gathering(_Experts):
    """Gathers the weights of the chosen experts for every token."""

    def mixed(self, x, weights, chosen):
        hidden = torch.einsum("tkoi,ti->tko", self.up[chosen], x).relu()
        rows = torch.einsum("tkoi,tki->tko", self.down[chosen], hidden)
        return (rows * weights[..., None]).sum(1)


class _Biased(_Gathering):
    """Adds a bias of the expert after each product."""

    def __init__(self):
        super().__init__()
        self.up_bias = nn.Parameter(torch.randn(5, 24))
        self.down_bias = nn.Parameter(torch.randn(5, 8))

    def mixed(self, x, weights, chosen):
        hidden = torch.einsum("tkoi,ti->tko", self.up[chosen], x) + self.up_bias[chosen]
        rows = torch.einsum("tkoi,tki->tko", self.down[chosen], hidden.relu())
        return ((rows + self.down_bias[chosen]) * weights[..., None]).sum(1)


class _Spread(_Gathering):
    """Spreads the weights over all experts, takes those above a bias, and gathers them again."""

    def __init__(self):
        super().__init__()
        self.register_buffer("bias", torch.randn(5))

    def forward(self, x):
        scores = self.gate(x).sigmoid()
        chosen = (scores + self.bias).topk(self.chosen, -1, sorted=False).indices
        weights = scores.gather(1, chosen)
        spread = torch.zeros_like(scores).scatter(1, chosen, weights)
        return self.mixed(x, spread.gather(1, chosen), chosen)


class _OneOfThem(_Gathering):
    """Chooses a single expert by its number alone."""

    def __init__(self):
        super().__init__(chosen=1)

    def forward(self, x):
        chosen = self.gate(x).argmax(-1, keepdim=True)
        return self.mixed(x, torch.ones(chosen.shape, dtype=x.dtype), chosen)


class _Nearest(_Gathering):
    """Chooses the experts with the smallest numbers."""

    def forward(self, x):
        distances, chosen = self.gate(x).square().topk(self.chosen, -1, False)
        return self.mixed(x, (-distances).softmax(-1), chosen)


class _Twice(_Gathering):
    """Chooses the best expert, and the best of the others."""

    def forward(self, x):
        scores = self.gate(x)
        first = scores.argmax(-1, keepdim=True)
        second = scores.scatter(-1, first, -torch.inf).argmax(-1, keepdim=True)
        chosen = torch.cat([first, second], dim=-1)
        return self.mixed(x, scores.softmax(-1).gather(-1, chosen), chosen)


class _ByNumber(_Looping):
    """Asks for experts by numbers of its own."""

    def mixed(self, x, weights, chosen):
        result = torch.zeros_like(x)
        for number in range(5):
            token, place = torch.where(chosen == number)
            hidden = F.linear(x[token], self.up[number]).relu()
            rows = F.linear(hidden, self.down[number]) * weights[token, place, None]
            result.index_add_(0, token, rows)
        return result


class _Numbered(_Gathering):
    """Computes with the numbers of its experts."""

    def mixed(self, x, weights, chosen):
        return super().mixed(x, weights * (1 + chosen), chosen)


def _net(experts):
    return nn.Sequential(nn.Linear(4, 8), experts, nn.Linear(8, 4))


def _experts_of(net):
    structure = trace(net, torch.randn(6, 4), allow_inexact=True)
    return [family for family in structure.families if family.kind == "expert"]


MIXTURES = [
    _Grouped,
    _Counted,
    _Looping,
    _LoopingPastTheLast,
    _Gathering,
    _Biased,
    _Spread,
]


def test_hidden_units_of_experts_leave_together_and_exactly():
    net, x = _net(_Looping()), torch.randn(6, 4)
    structure = trace(net, x)
    places = [{(m.tensor, m.axis) for m in family.members} for family in structure.families]
    assert {("1.up", 1), ("1.down", 2)} in places
    result = verify(net, x)
    assert result.num_units >= 12
    assert result.difference <= 1e-10


@pytest.mark.parametrize("experts", MIXTURES)
def test_a_whole_expert_owns_its_slices_and_its_row_of_the_router(experts):
    (family,) = _experts_of(_net(experts()))
    assert family.name == "1"
    assert (family.num_units, family.fewest) == (5, 2)
    places = {(m.tensor, m.axis) for m in family.members}
    assert {("1.up", 0), ("1.down", 0), ("1.gate.weight", 0), ("1.gate.bias", 0)} <= places
    assert all(m.index.tolist() == [[0], [1], [2], [3], [4]] for m in family.members)
    silencing = {m.tensor for m in family.members if m.consumes}
    assert silencing == {"1.down", "1.down_bias"} & {m.tensor for m in family.members}


@pytest.mark.parametrize("experts", [*MIXTURES, _OneOfThem])
def test_a_mixture_without_some_experts_is_one_that_cannot_choose_them(experts):
    torch.manual_seed(0)
    net, x = _net(experts()), torch.randn(16, 4)
    whole = net(x)
    structure = trace(net, x, allow_inexact=True)
    number = next(n for n, f in enumerate(structure.families) if f.kind == "expert")
    gate = net[1].gate
    with torch.no_grad():
        gate.bias[[1, 3]] = -torch.inf
    expected = net(x)
    assert (expected - whole).abs().max() > 1e-3
    cut_(net, structure, structure.everything(), Decision(units={number: torch.tensor([1, 3])}))
    assert net[1].up.shape == (3, 24, 8)
    assert net[1].gate.out_features == 3
    assert (net(x) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("experts", [*MIXTURES, _OneOfThem, _Nearest, _Twice])
def test_mixtures_agree_with_masked_ones(experts):
    result = verify(_net(experts()), torch.randn(16, 4), allow_inexact=True)
    assert result.num_units >= 2
    assert result.difference <= 1e-10


@pytest.mark.parametrize("experts", MIXTURES)
def test_experts_stay_by_default_since_others_are_chosen_in_their_place(experts):
    structure = trace(_net(experts()), torch.randn(6, 4))
    reasons = {f.what: f.reason.message for f in structure.fixed}
    assert reasons["1.up[0]"].startswith("is chosen among all units of this axis")


def test_what_may_not_be_chosen_again_leaves_one_more_to_be_chosen():
    (family,) = _experts_of(_net(_Twice()))
    assert family.fewest == 2
    (family,) = _experts_of(_net(_OneOfThem()))
    assert family.fewest == 1


def test_as_many_experts_stay_as_the_router_chooses():
    net, x = _net(_Looping()), torch.randn(6, 4)
    structure = trace(net, x, allow_inexact=True)
    number = next(n for n, f in enumerate(structure.families) if f.kind == "expert")
    with pytest.raises(SurgeryError, match="2 must stay"):
        cut_(
            net,
            structure,
            structure.everything(),
            Decision(units={number: torch.tensor([0, 1, 2, 3])}),
        )
    assert net[1].up.shape[0] == 5


@pytest.mark.parametrize(
    ("experts", "why"),
    [
        (_LoopingOverFive, "picked by the numbers of more or fewer units"),
        (_ByNumber, "a number that the forward computes with"),
        (_Numbered, "a number that the forward computes with"),
    ],
)
def test_experts_that_are_known_by_their_numbers_stay_and_say_why(experts, why):
    net, x = _net(experts()), torch.randn(6, 4)
    structure = trace(net, x, allow_inexact=True)
    assert not any(family.kind == "expert" for family in structure.families)
    reasons = {f.what: f.reason.message for f in structure.fixed}
    assert why in reasons["1.gate.weight[0]"]
    assert ("1.up", 1) in {(m.tensor, m.axis) for f in structure.families for m in f.members}
    assert verify(net, x, allow_inexact=True).difference <= 1e-10


def test_widths_of_a_grouped_product_leave_eight_at_a_time_since_its_kernel_refuses_others():
    net, x = _net(_Grouped()), torch.randn(6, 4)
    ends = torch.tensor([1, 2, 3, 4, 6]).int()
    with pytest.raises(RuntimeError, match="16 bytes"):
        torch._grouped_mm(torch.randn(6, 8), torch.randn(5, 8, 23), offs=ends)
    structure = trace(net, x)
    (hidden,) = (
        f for f in structure.families if ("1.up", 1) in {(m.tensor, m.axis) for m in f.members}
    )
    assert {(m.tensor, m.axis, m.consumes) for m in hidden.members} == {
        ("1.up", 1, False),
        ("1.down", 2, True),
    }
    assert all(m.index.tolist() == torch.arange(24).view(3, 8).tolist() for m in hidden.members)
    number = structure.families.index(hidden)
    with torch.no_grad():
        net[1].down[..., 8:16] = 0
        expected = net(x)
    cut_(net, structure, structure.everything(), Decision(units={number: torch.tensor([1])}))
    assert net[1].up.shape == (5, 16, 8)
    assert (net(x) - expected).abs().max() < 1e-6


def test_a_width_of_a_grouped_product_that_is_no_multiple_of_eight_stays():
    experts = _Grouped()
    experts.up = nn.Parameter(torch.randn(5, 20, 8))
    experts.down = nn.Parameter(torch.randn(5, 8, 20))
    structure = trace(_net(experts), torch.randn(6, 4))
    reasons = {f.what: f.reason.message for f in structure.fixed}
    assert "multiples of eight" in reasons["1.up[1]"]


@pytest.mark.parametrize("experts", MIXTURES)
def test_the_cost_of_a_mixture_is_that_of_as_many_experts_a_row_as_are_chosen(experts):
    structure = trace(_net(experts()), torch.randn(6, 4), allow_inexact=True)
    around = 6 * (4 * 8 + 8 * 5 + 8 * 4)
    assert structure.cost.macs.value() == pytest.approx(around + 6 * 2 * (8 * 24 + 24 * 8))


def test_a_softmax_over_units_that_are_not_chosen_fixes_them():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.parts = nn.Linear(4, 6), nn.Linear(4, 6)

        def forward(self, x):
            return self.gate(x).softmax(-1) * self.parts(x)

    net = nn.Sequential(Mixed(), nn.Linear(6, 2))
    structure = trace(net, torch.randn(3, 4), allow_inexact=True)
    reasons = {f.what: f.reason.message for f in structure.fixed}
    assert structure.families == ()
    assert reasons["0.gate.weight[0]"] == "is normalised or ordered along its own axis"


class _Block(nn.Module):
    """Adds what a mixture makes of its input."""

    def __init__(self, experts):
        super().__init__()
        self.mixture = experts

    def forward(self, x):
        return x + self.mixture(x)


@pytest.mark.parametrize("experts", MIXTURES)
def test_a_mixture_can_leave_as_a_whole_and_its_last_weights_silence_it(experts):
    net, x = _net(_Block(experts())), torch.randn(16, 4)
    structure = trace(net, x)
    closing = [
        name for name in ("1.mixture.down", "1.mixture.down_bias") if name in structure.tensors
    ]
    assert [(layer.name, sorted(layer.closing)) for layer in structure.layers] == [("1", closing)]
    assert verify(net, x).difference <= 1e-10


class _Listed(nn.Module):
    """Four experts in a list, two for each token."""

    def __init__(self, adds):
        super().__init__()
        self.gate = nn.Linear(8, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8)) for _ in range(4)
        )
        self.adds = adds

    def forward(self, x):
        weights, chosen = self.gate(x).softmax(-1).topk(2, -1)
        result = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            result = self.adds(result, x, weights, chosen == number, expert)
        return result


def _into_rows(result, x, weights, hits, expert):
    token, place = torch.where(hits)
    result[token] += weights[token, place, None] * expert(x[token])
    return result


def _by_index(result, x, weights, hits, expert):
    token, place = torch.where(hits)
    return result.index_add(0, token, weights[token, place, None] * expert(x[token]))


def _everywhere(result, x, weights, hits, expert):
    return result + (weights * hits).sum(-1, keepdim=True) * expert(x)


@pytest.mark.parametrize("adds", [_into_rows, _by_index, _everywhere])
def test_experts_in_a_list_leave_as_layers_and_exactly(adds):
    net, x = _net(_Listed(adds)), torch.randn(16, 4)
    structure = trace(net, x)
    assert [layer.name for layer in structure.layers] == [f"1.experts.{i}" for i in range(4)]
    with torch.no_grad():
        for parameter in (net[1].experts[2][2].weight, net[1].experts[2][2].bias):
            parameter.zero_()
        expected = net(x)
    cut_(net, structure, structure.everything(), Decision(layers=(2,)))
    assert not list(net[1].experts[2].parameters())
    assert (net(x) - expected).abs().max() < 1e-6
    result = verify(_net(_Listed(adds)), x)
    assert result.num_layers == 2
    assert result.difference <= 1e-10
