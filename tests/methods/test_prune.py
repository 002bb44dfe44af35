import copy
import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import secateur
from secateur.errors import NothingRemovableError, UsageError
from secateur.methods.scores import SCORES, Magnitude, SynFlow
from secateur.methods.scores._synflow import flow, positive_copy
from tests.structures import convnet, residual


class Fixed:
    """A score that is known beforehand."""

    needs_data = False

    def __init__(self, *scores):
        self.scores = iter(scores)
        self.subjects = []

    def units(self, subject):
        self.subjects.append(subject)
        return torch.as_tensor(next(self.scores), dtype=torch.float64)


def data_of(num_batches=2):
    generator = torch.Generator().manual_seed(2)
    return [
        (torch.randn(8, 3, 6, 6, generator=generator), torch.randint(3, (8,), generator=generator))
        for _ in range(num_batches)
    ]


def loss_of(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


@pytest.mark.parametrize("score", SCORES)
def test_every_score_leaves_a_smaller_network_at_the_target(score):
    model, _, example = residual()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    loss_of(model, data_of()[0]).backward()
    optimizer.step()
    weight = model.fc.weight
    pruned = secateur.prune(
        model,
        example,
        score=score,
        target_macs=0.5,
        data=data_of(),
        loss=loss_of,
        optimizer=optimizer,
    )
    assert pruned.macs[1] <= 0.5 * pruned.macs[0]
    assert pruned.macs[1] == secateur.trace(model, example).cost.macs.value()
    assert pruned.params[1] == sum(p.numel() for p in model.parameters())
    assert model.fc.weight is weight
    assert optimizer.state[weight]["momentum_buffer"].shape == weight.shape
    loss_of(model, data_of()[0]).backward()
    optimizer.step()


def test_the_smaller_network_computes_what_the_whole_one_does_with_the_same_units_silenced():
    model, structure, example = convnet()
    masked = copy.deepcopy(model).eval()
    pruned = secateur.prune(model, example, score="magnitude", target_params=0.6)
    with torch.no_grad():
        for family, live_U in zip(pruned.structure.families, pruned.live.units, strict=True):
            for member in family.members:
                if member.consumes:
                    tensor = dict(masked.named_parameters())[member.tensor]
                    tensor.index_fill_(member.axis, member.index[~live_U].flatten(), 0.0)
        assert_close(model.eval()(example), masked(example))
    assert structure.num_units == pruned.structure.num_units
    assert model.conv1.weight.shape[0] + model.conv2.weight.shape[0] < 9


def test_the_lowest_scores_go_first():
    model, _, example = convnet()
    scores = [0.9, 0.1, 0.8, 0.7, 0.2, 0.6, 0.3, 0.5, 0.4]
    before = model.conv1.weight[[0, 2, 3]].clone()
    pruned = secateur.prune(model, example, score=Fixed(scores), target_macs=0.75)
    gone = [i for i, alive in enumerate(torch.cat(pruned.live.units).tolist()) if not alive]
    assert 1 in gone
    assert max(scores[i] for i in gone) < 0.6
    assert torch.equal(model.conv1.weight, before)
    assert pruned.scores.tolist() == scores


def test_rounds_cut_costs_by_equal_factors_and_measure_scores_anew():
    model, _, example = residual()
    score = Fixed(*[torch.rand(12) for _ in range(3)])
    widths = []
    pruned = secateur.prune(
        model,
        example,
        score=score,
        target_params=0.35,
        rounds=3,
        fine_tune=lambda net: widths.append(sum(p.numel() for p in net.parameters())),
    )
    whole = pruned.params[0]
    assert widths == [done.params for done in pruned.rounds]
    for number, done in enumerate(pruned.rounds, start=1):
        assert done.params <= whole * 0.35 ** (number / 3)
    assert pruned.rounds[0].params > whole * 0.35 ** (2 / 3)  # not all of it in the first round
    assert [int(subject.live.counts.sum()) for subject in score.subjects] == [
        12 - sum(done.num_units for done in pruned.rounds[:k]) for k in range(3)
    ]


def test_synflow_in_many_rounds_keeps_what_it_would_lose_in_one():
    """Oracle: the flow itself, which is what the score is about."""

    def net():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
        )

    def flow_left(rounds):
        model = net()
        secateur.prune(model, torch.zeros(1, 8), score="synflow", target_params=0.05, rounds=rounds)
        return float(flow(positive_copy(model), ((torch.zeros(1, 8),), {})).detach())

    assert flow_left(30) > flow_left(1)


def test_equal_seeds_remove_equal_units():
    lives = []
    for seed in (3, 3, 4):
        model, _, example = convnet()
        pruned = secateur.prune(model, example, score="random", target_macs=0.5, seed=seed)
        lives.append(torch.cat(pruned.live.units).tolist())
    assert lives[0] == lives[1]
    assert lives[0] != lives[2]


def test_a_pruned_model_can_be_saved_and_loaded(tmp_path):
    model, _, example = convnet()
    secateur.prune(model, example, score="magnitude", target_macs=0.5)
    secateur.save(model, tmp_path / "small")
    loaded = secateur.load(lambda: convnet().model, tmp_path / "small")
    assert torch.equal(loaded.eval()(example), model.eval()(example))


def test_a_pruned_model_can_be_pruned_again():
    model, _, example = convnet()
    secateur.prune(model, example, score="magnitude", target_macs=0.7)
    pruned = secateur.prune(model, example, score="magnitude", target_macs=0.7)
    assert pruned.params[1] == sum(p.numel() for p in model.parameters())
    assert pruned.structure.num_units < 9


def test_units_under_a_norm_go_where_inexact_removals_are_allowed():
    model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(NothingRemovableError, match="No unit of this Sequential can be removed"):
        secateur.prune(model, torch.zeros(1, 6), score="magnitude", target_macs=0.5)
    secateur.prune(model, torch.zeros(1, 6), score="magnitude", target_macs=0.5, allow_inexact=True)
    assert model[0].out_features == 4


def test_the_table_names_widths_and_what_was_saved():
    model, _, example = convnet()
    scores = [0.9, 0.1, 0.8, 0.7, 0.2, 0.6, 0.3, 0.5, 0.4]
    pruned = secateur.prune(model, example, score=Fixed(scores), target_macs=0.75)
    text = str(pruned)
    # widths (3, 4): 2 (36 x (27 x 3 + 9 x 3 x 4) + 3 x 4) of 2 (36 x (27 x 4 + 9 x 4 x 5) + 3 x 5)
    assert pruned.macs == (20766.0, 13632.0)
    assert text.startswith("Removed 2 of 9 units by Fixed in 1 round: 65.6 % of the MACs")
    assert "(20,766 to 13,632)" in re.sub(r"\s+", " ", text)
    rows = [line.split() for line in text.splitlines()]
    assert ["conv1", "filter", "4", "3", "75.0", "%", "0.1", "0.7"] in rows
    assert ["conv2", "filter", "5", "4", "80.0", "%", "0.2", "0.3"] in rows


def test_the_table_of_several_rounds_compares_no_scores_of_different_rounds():
    model, _, example = convnet()
    one = [0.9, 0.1, 0.8, 0.7, 0.2, 0.6, 0.3, 0.5, 0.4]
    scores = (one, [score * 1000 for score in one])
    pruned = secateur.prune(model, example, score=Fixed(*scores), target_macs=0.6, rounds=2)
    lines = str(pruned).splitlines()
    assert " in 2 rounds: " in " ".join(lines)
    assert pruned.scores[1] == 0.1  # gone in the first round
    assert pruned.scores[torch.cat(pruned.live.units)].min() > 100
    assert ["family", "kind", "before", "after", "kept"] in [line.split() for line in lines]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "prune was not told how small the model should get. Pass target_macs=0.5"),
        ({"target_macs": 1.5}, "target_macs=1.5 is outside (0, 1). Give what is left, as a share"),
        (
            {"target_params": 0.0},
            "target_params=0.0 is outside (0, 1). Give what is left",
        ),
        ({"target_macs": 0.5, "rounds": 0}, "rounds=0 removes nothing. Pass 1"),
        ({"target_macs": 0.5, "score": "tailor"}, "No score of units is called 'tailor'"),
        ({"target_macs": 0.5, "score": "taylor"}, "measures a loss and got no data and no loss."),
        (
            {"target_macs": 0.5, "score": "taylor", "data": []},
            "score='taylor' measures a loss and got no loss. Pass data=",
        ),
        (
            {"target_macs": 0.5, "score": "taylor", "rounds": 2, "data": iter([])},
            "which can be gone through once, and 2 rounds measure scores anew",
        ),
        ({"target_macs": 0.001}, "Removing units cannot bring the model down to 21 MACs"),
    ],
)
def test_settings_that_cannot_work_are_refused_and_the_model_stays(settings, message):
    model, _, example = convnet()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UsageError, match=re.escape(message)):
        secateur.prune(model, example, **{"score": "magnitude", **settings})
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_score_can_be_an_object_with_settings():
    model, _, example = convnet()
    assert secateur.prune(model, example, score=Magnitude(power=1), target_macs=0.5).score == (
        "Magnitude"
    )
    assert secateur.prune(model, example, score=SynFlow(), target_macs=0.9).score == "SynFlow"


def test_a_model_that_was_pruned_twice_can_be_loaded_into_the_whole_one(tmp_path):
    model, _, example = residual()
    for share in (0.8, 0.8):
        secateur.prune(model, example, score="magnitude", target_macs=share)
    secateur.save(model, tmp_path / "small")
    loaded = secateur.load(lambda: residual().model, tmp_path / "small")
    assert torch.equal(loaded.eval()(example), model.eval()(example))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("wrap", [nn.DataParallel, partial(torch.compile, backend="eager")])
def test_a_wrapped_model_is_pruned_like_the_one_inside_and_fine_tuned_as_it_was_given(wrap):
    plain, _, example = convnet()
    inside = convnet().model
    wrapper, seen = wrap(inside), []
    settings = {"score": "taylor", "target_macs": 0.5, "data": data_of(), "loss": loss_of}
    expected = secateur.prune(plain, example, **settings)
    pruned = secateur.prune(wrapper, example, **settings, fine_tune=seen.append)
    assert len(seen) == 1
    assert seen[0] is wrapper
    assert pruned.edit is secateur.surgery.edit_of(inside)
    assert pruned.macs == expected.macs
    for name, parameter in plain.named_parameters():
        assert torch.equal(inside.get_parameter(name), parameter)
    assert_close(wrapper(example), plain(example))
