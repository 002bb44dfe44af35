"""Damage inside fused calls and behind views of weights, against copies with zeroed weights."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from secateur.gates import Ablation, DamageMeter
from secateur.gates._recorder import _runs_along
from secateur.structure import Decision, Structure
from secateur.surgery import cut_
from tests.gates.test_damage import measure, sampled, total, traced


def every_third(structure: Structure, rows: int, variants: int = 1) -> torch.Tensor:
    """Masks of about a third of all units, others for each row and each evaluation."""
    count = torch.arange
    place = count(variants)[:, None, None] + count(rows)[:, None] + count(structure.num_units)
    return place % 3 == 0


def energy(*outputs: torch.Tensor) -> torch.Tensor:
    return torch.stack([output.detach().square().sum() for output in outputs]).sum()


def without(model: nn.Module, columns: dict[str, torch.Tensor]) -> nn.Module:
    """A copy in which columns of weights are zero."""
    small = copy.deepcopy(model)
    with torch.no_grad():
        for name, off in columns.items():
            small.get_parameter(name)[:, off] = 0
    return small


class Recurrent(nn.Module):
    """Two recurrent layers of six units, and a head that reads the last step."""

    def __init__(self, kind: str, batch_first: bool = True, **settings) -> None:
        super().__init__()
        self.layers = getattr(nn, kind)(4, 6, 2, batch_first=batch_first, **settings)
        self.head = nn.Linear(6, 3)
        self.step = (slice(None), -1) if batch_first else -1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(x)[0][self.step])


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
def test_recurrent_units_are_silenced_where_all_layers_and_the_head_read_them(kind, batch_first):
    torch.manual_seed(0)
    shape = (8, 5, 4) if batch_first else (5, 8, 4)
    model, structure, x = traced(Recurrent(kind, batch_first), *shape)
    off = every_third(structure, 8, variants=2)
    meter = DamageMeter(model, structure, structure.everything())
    readers = ("layers.weight_hh_l0", "layers.weight_ih_l1", "layers.weight_hh_l1")
    found = meter.measure(sampled(0, off=off), lambda: model(x), 8)
    base = model.layers(x)[0]
    for variant in range(2):
        mask = off[variant, 0]
        layers = without(model, dict.fromkeys(readers, mask)).layers(x)[0]
        heads = model.head(base[model.step]) - model.head(base[model.step] * ~mask)
        assert bool(mask.any())
        expected = (base - layers).square().sum() + heads.square().sum()
        assert_close(found.change_VRF[variant, 0, 0], expected.detach())
    assert_close(found.energy_RF[0, 0], energy(base, model(x)))
    assert not found.energy_RF[1:].any()
    assert not found.quadratic


class Attending(nn.Module):
    """A layer of attention between two others."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 8)
        self.mix = nn.MultiheadAttention(8, 4, batch_first=True, dropout=dropout)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.mix(x, x, x, need_weights=False)[0].mean(dim=1))


def test_heads_are_silenced_inside_attention_with_the_dropout_of_the_base_path():
    model, structure, x = traced(Attending(dropout=0.5), 6, 7, 5)
    (family,) = [f for f, made in enumerate(structure.families) if made.kind == "head"]
    off = torch.zeros(1, 6, structure.num_units, dtype=torch.bool)
    off[:, :, structure.offsets[family] + 1] = True
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    damage = measure(model, structure, sampled(family, off=off), x)
    after = torch.rand(3)
    torch.manual_seed(3)
    base = model(x)
    assert torch.equal(after, torch.rand(3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def mixed(model: nn.Module) -> torch.Tensor:
        torch.manual_seed(3)
        y = model.stem(x)
        return model.mix(y, y, y, need_weights=False)[0]

    assert_close(model.head(mixed(model).mean(dim=1)), base)
    silenced = without(model, {"mix.out_proj.weight": torch.tensor([2, 3])})
    change = (mixed(model) - mixed(silenced)).square().sum().detach()
    assert_close(damage.change_VRF[0, 0, family], change)
    assert_close(damage.energy_RF[0, family], energy(mixed(model)))


class Read(nn.Module):
    """A hidden layer that a plain layer reads before a recurrent one does."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 6)
        self.aside = nn.Linear(6, 3)
        self.layers = nn.GRU(6, 3, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.aside(x) + self.layers(x)[0]


def test_a_family_read_in_both_ways_has_one_mask_everywhere_from_the_second_pass_on():
    model, structure, x = traced(Read(), 5, 7, 4)
    off = every_third(structure, 5)
    (family,) = [f for f, made in enumerate(structure.families) if made.name == "stem"]
    start, stop = structure.offsets[family : family + 2]
    mask = off[0, 0, start:stop]
    meter = DamageMeter(model, structure, structure.everything())
    first, second = (meter.measure(sampled(family, off=off), lambda: model(x), 5) for _ in range(2))
    assert not first.energy_RF.any()
    hidden = model.stem(x)
    aside = (model.aside(hidden) - model.aside(hidden * ~mask)).square().sum()
    layers = (model.layers(hidden)[0] - model.layers(hidden * ~mask)[0]).square().sum()
    assert bool(mask.any())
    assert_close(second.change_VRF[0, 0, family], (aside + layers).detach())
    assert_close(second.energy_RF[0, family], energy(model.aside(hidden), model.layers(hidden)[0]))
    assert not second.energy_RF[1:, family].any()


class Transposed(nn.Module):
    """Reads hidden units with a weight it turns around, and one it takes apart."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(4, 6)
        self.down = nn.Parameter(torch.randn(3, 6))
        self.pair = nn.Parameter(torch.randn(4, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.up(x))
        left, right = self.pair.chunk(2)
        return torch.cat([x @ self.down.t(), F.linear(x, left), F.linear(x, right)], dim=1)


def test_a_weight_that_is_turned_around_or_taken_apart_is_a_consumer_with_a_mask_a_sample():
    model, structure, x = traced(Transposed(), 5, 4)
    off = every_third(structure, 5)
    hidden = torch.relu(model.up(x))
    readers = torch.cat([model.down, model.pair])
    change = total((hidden * off[0]) @ readers.t()).detach()
    damage = measure(model, structure, sampled(0, off=off), x)
    assert bool((change > 0).all())
    assert_close(damage.change_VRF[0, :, 0], change)
    assert_close(damage.energy_RF.sum(), energy(hidden @ readers.t()))
    exact = measure(model, structure, Ablation(off_VRU=off, exact=frozenset({0})), x)
    contribution = hidden.detach()[:, None, :] * readers.detach()
    assert_close(exact.grams[0], torch.einsum("bop,boq->pq", contribution, contribution))


def test_an_axis_of_a_view_counts_if_it_is_the_whole_of_the_same_axis():
    square = nn.Parameter(torch.randn(4, 4))
    with torch.no_grad():
        turned, part = square.t(), square[:, :2]
    assert _runs_along(square, 1, turned, 0)
    assert not _runs_along(square, 1, turned, 1)
    assert not _runs_along(square, 1, part, 1)


def test_attention_that_lost_a_head_is_judged_sample_by_sample():
    model, structure, x = traced(Attending(), 6, 7, 5)
    (family,) = [f for f, made in enumerate(structure.families) if made.kind == "head"]
    start = structure.offsets[family]
    gone = Decision(units={family: torch.tensor([0])})
    live, _ = cut_(model, structure, structure.everything(), gone)
    off = torch.zeros(1, 6, structure.num_units, dtype=torch.bool)
    off[0, ::2, start + 1] = True
    meter = DamageMeter(model, structure, live)
    damage = meter.measure(sampled(family, off=off), lambda: model(x), 6)
    hidden = model.stem(x)
    base = model.mix(hidden, hidden, hidden)[0]
    silenced = without(model, {"mix.out_proj.weight": torch.tensor([0, 1])})
    change = total(base - silenced.mix(hidden, hidden, hidden)[0]).detach()
    assert bool((change > 0).all())
    assert_close(damage.change_VRF[0, ::2, family], change[::2])
    assert not damage.change_VRF[0, 1::2].any()


def test_cells_are_judged_at_every_step():
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.cell = nn.Linear(3, 5), nn.LSTMCell(5, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            state = (x.new_zeros(len(x), 4), x.new_zeros(len(x), 4))
            for step in x.unbind(1):
                state = self.cell(torch.relu(self.up(step)), state)
            return state[0]

    model, structure, x = traced(Steps(), 6, 2, 3)
    (family,) = [f for f, made in enumerate(structure.families) if made.name == "up"]
    off = every_third(structure, 6)
    mask = off[0, 0, structure.offsets[family] :][:5]
    silenced = without(model, {"cell.weight_ih": mask})
    damage = measure(model, structure, sampled(family, off=off), x)
    change, norm, state = torch.zeros(()), torch.zeros(()), (x.new_zeros(6, 4),) * 2
    for step in x.unbind(1):
        seen = torch.relu(model.up(step))
        change = (
            change + (model.cell(seen, state)[0] - silenced.cell(seen, state)[0]).square().sum()
        )
        state = model.cell(seen, state)
        norm = norm + energy(state[0])
    assert bool(mask.any())
    assert_close(damage.change_VRF[0, 0, family], change.detach())
    assert_close(damage.energy_RF[0, family], norm)
