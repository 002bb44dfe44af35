"""The example, the laws and the invariances of SynFlow: Tanaka et al. 2020."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from secateur.errors import UsageError
from secateur.methods.scores import SynFlow
from secateur.methods.scores._synflow import flow, positive_copy
from secateur.structure import trace
from tests.methods.scores.subjects import subject_of
from tests.structures import convnet, mlp, residual

LAW = {"rtol": 1e-10, "atol": 0.0}


def every_weight(model):
    return {n: torch.ones(p.shape, dtype=torch.bool) for n, p in model.named_parameters()}


def scored(model, structure, masks=None):
    masks = every_weight(model) if masks is None else masks
    return SynFlow().weights(subject_of(model, structure), masks)


def total_flow(model, structure):
    return float(flow(positive_copy(model).eval(), structure.example).detach())


def example_net():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 4.0]]))
        model[2].weight.copy_(torch.tensor([[1.0, -1.0]]))
    return model, trace(model, torch.zeros(1, 2))


def test_hand_computed_two_layers():
    """R = 1 x (1 + 2) + 1 x (3 + 4) = 10; a path's weight counts at both of its weights."""
    model, structure = example_net()
    assert total_flow(model, structure) == 10.0
    scores = scored(model, structure)
    assert scores["0.weight"].tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert scores["2.weight"].tolist() == [[3.0, 7.0]]
    assert SynFlow().units(subject_of(model, structure)).tolist() == [3.0, 7.0]


def test_scores_of_three_layers_are_the_products_of_matrices():
    """R = 1' A B C 1 of absolute matrices; a weight's score is what comes times what follows."""
    model = nn.Sequential(
        nn.Linear(3, 5, bias=False), nn.ReLU(), nn.Linear(5, 4, bias=False), nn.ReLU(),
        nn.Linear(4, 2, bias=False),
    )  # fmt: skip
    structure = trace(model, torch.zeros(1, 3))
    first, second, third = (model[i].weight.detach().double().abs() for i in (0, 2, 4))
    into_second, into_third = first.sum(1), second @ first.sum(1)
    after_second = third.sum(0)
    after_first = after_second @ second
    scores = scored(model, structure)
    assert_close(scores["0.weight"], first * after_first[:, None], **LAW)
    assert_close(scores["2.weight"], second * after_second[:, None] * into_second, **LAW)
    assert_close(scores["4.weight"], third * into_third, **LAW)
    assert total_flow(model, structure) == pytest.approx(float((third @ into_third).sum()))


def test_every_layer_of_a_network_without_biases_carries_the_whole_flow():
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1, bias=False),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 4, 3, bias=False),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3, bias=False),
    )
    structure = trace(model, torch.zeros(1, 2, 8, 8))
    scores = scored(model, structure)
    whole = total_flow(model, structure)
    for name in ("0.weight", "1.weight", "4.weight", "8.weight"):
        assert float(scores[name].sum()) == pytest.approx(whole, rel=1e-10)
    assert float(SynFlow().units(subject_of(model, structure)).sum()) == pytest.approx(2 * whole)


def test_biases_take_the_flow_that_layers_above_them_do_not_carry():
    """sum S(W_l) + sum over k >= l of S(b_k) = R."""
    model, structure, _ = mlp()
    scores = scored(model, structure)
    whole = total_flow(model, structure)
    for first in (0, 2, 4):
        biases = sum(float(scores[f"{k}.bias"].sum()) for k in (0, 2, 4) if k >= first)
        carried = float(scores[f"{first}.weight"].sum())
        assert carried + biases == pytest.approx(whole, rel=1e-10)
        assert biases > 1e-3


@pytest.mark.parametrize("build", [mlp, convnet])
def test_what_flows_into_a_unit_flows_out_of_it(build):
    """Sum over incoming weights and the bias = sum over outgoing weights = score of the unit."""
    model, structure, _ = build()
    for name, parameter in model.named_parameters():
        if "bn" in name and "bias" in name:
            parameter.data.zero_()
    scores = scored(model, structure)
    unit_U = SynFlow().units(subject_of(model, structure))
    into, out_of = [], []
    for family in structure.families:
        made = [
            m for m in family.members if not m.consumes and m.tensor.split(".")[0] == family.name
        ]
        into.append(
            sum(scores[m.tensor].flatten(1).sum(1) for m in made if scores[m.tensor].dim() > 1)
        )
        into[-1] = into[-1] + sum(scores[m.tensor] for m in made if scores[m.tensor].dim() == 1)
        (used,) = [m for m in family.members if m.consumes]
        out_of.append(scores[used.tensor].transpose(0, 1).flatten(1).sum(1))
    assert_close(torch.cat(into), torch.cat(out_of), **LAW)
    assert_close(unit_U, torch.cat(out_of), **LAW)


def test_a_stream_channel_carries_what_leaves_it_in_all_its_uses():
    model, structure, _ = residual()
    scores = scored(model, structure)
    unit_U = SynFlow().units(subject_of(model, structure))
    uses = ("fc.weight", "block1.conv1.weight", "block2.conv1.weight")
    wanted = sum(scores[name].transpose(0, 1).flatten(1).sum(1) for name in uses)
    assert_close(unit_U[:4], wanted, **LAW)


def test_the_laws_hold_in_a_deep_network_whose_flow_is_beyond_float32():
    layers = [nn.Linear(64, 64, bias=False) for _ in range(40)]
    for layer in layers:
        nn.init.constant_(layer.weight, 0.5)
    model = nn.Sequential(*layers)
    structure = trace(model, torch.zeros(1, 64))
    whole = total_flow(model, structure)
    assert whole == pytest.approx(64.0 * 32.0**40, rel=1e-10)  # 64 outputs of 32 x 32 x ... x 32
    assert whole > torch.finfo(torch.float32).max
    scores = scored(model, structure)
    sums = [float(score.sum()) for score in scores.values()]
    assert max(sums) / min(sums) == pytest.approx(1.0, rel=1e-10)


def test_norms_multiply_by_their_positive_scale_and_shift_nothing():
    model, structure = example_net()
    normed = nn.Sequential(model[0], nn.BatchNorm1d(2, eps=0.0), nn.ReLU(), model[2])
    normed[1].weight.data.copy_(torch.tensor([-2.0, 3.0]))
    normed[1].bias.data.fill_(100.0)
    normed[1].running_mean.fill_(-50.0)
    normed[1].running_var.copy_(torch.tensor([4.0, 0.25]))
    structure = trace(normed, torch.zeros(2, 2))
    # factors 2 / 2 = 1 and 3 / 0.5 = 6; the example has a batch of two
    assert SynFlow().units(subject_of(normed, structure)).tolist() == [2 * 3.0, 2 * 42.0]


def test_scores_know_neither_data_nor_signs():
    model, structure, example = mlp()
    before = scored(model, structure)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= torch.randint(2, parameter.shape) * 2 - 1
    example.normal_()
    after = scored(model, structure)
    for name, score in before.items():
        assert torch.equal(after[name], score)


def test_scaling_a_layer_up_and_the_next_down_changes_no_score():
    model, structure, _ = convnet()
    for name, parameter in model.named_parameters():
        if "bn" in name and "bias" in name:
            parameter.data.zero_()
    model.double()
    before = scored(model, structure)
    with torch.no_grad():
        model.conv1.weight *= 3.0
        model.conv2.weight /= 3.0
    after = scored(model, structure)
    for name, score in before.items():
        assert_close(after[name], score, **LAW)


def test_masked_weights_carry_nothing_and_the_rest_what_the_smaller_network_carries():
    """Oracle: write zeros into a copy of the network."""
    model, structure, _ = mlp()
    masks = every_weight(model)
    masks["2.weight"] = torch.rand(4, 5) > 0.5
    kept = scored(model, structure, masks)
    with torch.no_grad():
        model[2].weight *= masks["2.weight"]
    zeroed = scored(model, structure)
    for name, score in kept.items():
        assert_close(score, zeroed[name], **LAW)


@pytest.mark.parametrize(
    "activation", [nn.GELU(), nn.SiLU(), nn.Hardswish(), nn.Tanh(), nn.Softplus(), nn.ELU()]
)
def test_activations_pass_positive_flow_on_as_relu_does(activation):
    model, structure = example_net()
    model[1] = activation
    assert SynFlow().units(subject_of(model, structure)).tolist() == [3.0, 7.0]


def test_a_gate_passes_on_shares_of_its_largest_input():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.value = nn.Linear(2, 2, bias=False)
            self.gate = nn.Linear(2, 2, bias=False)
            self.out = nn.Linear(2, 1, bias=False)

        def forward(self, x):
            return self.out(self.value(x) * torch.sigmoid(self.gate(x)))

    model = Gated()
    with torch.no_grad():
        model.value.weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 4.0]]))
        model.gate.weight.copy_(torch.tensor([[1.0, 1.0], [-3.0, 5.0]]))
        model.out.weight.copy_(torch.tensor([[1.0, -1.0]]))
    structure = trace(model, torch.zeros(1, 2))
    # values 3 and 7, gates 2 / 8 and 8 / 8
    assert total_flow(model, structure) == 3 * 0.25 + 7
    scores = scored(model, structure)
    assert scores["value.weight"].tolist() == [[0.25, 0.5], [3.0, 4.0]]
    assert scores["gate.weight"].tolist() == [[3 / 8, 3 / 8], [7 * 3 / 8, 7 * 5 / 8]]
    assert SynFlow().units(subject_of(model, structure)).tolist() == [0.75, 7.0]


def test_forty_gated_blocks_do_not_overflow():
    """Gates that multiplied the flow with itself would have it at the power of 2^40."""

    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.gate = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            y = torch.relu(self.up(x))
            return y * torch.nn.functional.hardsigmoid(self.gate(y))

    model = nn.Sequential(*(Gated() for _ in range(40)), nn.Linear(8, 2))
    structure = trace(model, torch.zeros(1, 8))
    score_U = SynFlow().units(subject_of(model, structure))
    assert torch.isfinite(score_U).all()
    assert (score_U > 0).all()


def test_attention_weighs_values_by_products_of_queries_and_keys():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(4, 6, bias=False) for _ in range(3))
            self.out = nn.Linear(6, 4, bias=False)

        def forward(self, x):
            q, k, v = (
                layer(x).unflatten(-1, (2, 3)).transpose(1, 2) for layer in (self.q, self.k, self.v)
            )
            y = F.scaled_dot_product_attention(q, k, v)
            return self.out(y.transpose(1, 2).flatten(2))

    model = Attention()
    structure = trace(model, torch.zeros(1, 5, 4))
    scores = scored(model, structure)
    whole = total_flow(model, structure)
    for name in ("q.weight", "k.weight", "v.weight", "out.weight"):  # linear in each of them
        assert float(scores[name].sum()) == pytest.approx(whole, rel=1e-10)


def test_a_network_without_flow_is_refused():
    model, structure = example_net()
    with torch.no_grad():
        model[2].weight.zero_()
    with pytest.raises(UsageError, match=r"flow of this Sequential is 0\.0"):
        SynFlow().units(subject_of(model, structure))


class Mixture(nn.Module):
    """Two experts, one for each row, by a grouped product or by one product a group."""

    def __init__(self, is_grouped):
        super().__init__()
        self.experts = nn.Parameter(torch.arange(1.0, 129.0).reshape(2, 8, 8))
        self.last = nn.Linear(8, 2, bias=False)
        self.is_grouped = is_grouped

    def forward(self, x):
        ends = torch.tensor([1, 3], dtype=torch.int32)
        if self.is_grouped:
            return self.last(torch._grouped_mm(x, self.experts, offs=ends))
        parts = zip(x.split([1, 2]), self.experts, strict=True)
        return self.last(torch.cat([rows @ weight for rows, weight in parts]))


def test_a_grouped_product_carries_as_much_as_its_groups():
    scores = []
    for is_grouped in (True, False):
        torch.manual_seed(0)
        model = Mixture(is_grouped)
        scores.append(scored(model, trace(model, torch.ones(3, 8))))
    assert scores[0].keys() == scores[1].keys()
    for name in scores[0]:
        assert_close(scores[0][name], scores[1][name], **LAW)
