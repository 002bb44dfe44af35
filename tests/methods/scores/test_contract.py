"""What every score promises."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from secateur.errors import UsageError
from secateur.methods.scores import (
    SCORES,
    WEIGHT_SCORES,
    Magnitude,
    Subject,
    score_named,
    weight_score_named,
)
from secateur.structure import Decision, trace
from secateur.surgery import cut_
from tests.methods.scores.subjects import batches_for, cross_entropy, subject_of
from tests.structures import convnet, mlp, residual

NETS = {"convnet": convnet, "residual": residual}


def snapshot(model):
    return {
        "state": copy.deepcopy(model.state_dict()),
        "grad": {name: p.grad for name, p in model.named_parameters()},
        "needs": {name: p.requires_grad for name, p in model.named_parameters()},
        "training": {name: module.training for name, module in model.named_modules()},
        "buffers": {name: id(buffer) for name, buffer in model.named_buffers()},
    }


def assert_untouched(model, before):
    after = snapshot(model)
    for name, tensor in before["state"].items():
        assert torch.equal(after["state"][name], tensor), name
    assert all(after["grad"][name] is grad for name, grad in before["grad"].items())
    for what in ("needs", "training", "buffers"):
        assert after[what] == before[what]


def masks_of(model):
    generator = torch.Generator().manual_seed(3)
    return {
        name: torch.rand(p.shape, generator=generator) > 0.3
        for name, p in model.named_parameters()
        if p.dim() > 1
    }


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("name", SCORES)
def test_scores_of_units_have_one_finite_entry_a_unit_and_leave_the_model_as_it_was(name, net):
    built = NETS[net]()
    model, structure, _ = built
    model.train()
    model.conv0.eval() if net == "residual" else model.conv1.eval()
    model.fc.bias.requires_grad_(False)
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    before = snapshot(model)
    score_U = score_named(name).units(subject_of(model, structure, batches=batches_for(built)))
    assert_untouched(model, before)
    assert score_U.shape == (structure.num_units,)
    assert score_U.dtype in {torch.float32, torch.float64}
    assert torch.isfinite(score_U).all()
    assert (score_U >= 0).all()
    assert len(score_U.unique()) > structure.num_units // 2  # no constant


@pytest.mark.parametrize("name", sorted(SCORES.keys() - {"random"}))  # drawn for the whole model
def test_scores_of_what_is_left_do_not_depend_on_where_it_was_in_the_whole_model(name):
    """Oracle: trace the smaller model anew, and score it as if nothing had ever been removed."""
    built = residual()
    model, structure, example = built
    decision = Decision(
        units={0: torch.tensor([1]), 1: torch.tensor([0]), 2: torch.tensor([1, 4])}, layers=(0,)
    )
    batches = batches_for(built)
    live, _ = cut_(model, structure, structure.everything(), decision, proof=False)
    score_U = score_named(name).units(subject_of(model, structure, live=live, batches=batches))
    left_U = torch.cat(live.units)
    assert (score_U[~left_U] == 0).all()
    anew = trace(model, example)
    fresh_U = score_named(name).units(subject_of(model, anew, batches=batches))
    inner = structure.offsets[1]  # family block1.conv1 left with its layer: 0 or never
    keep_U = left_U.clone()
    keep_U[inner : structure.offsets[2]] = False
    assert_close(score_U[keep_U], fresh_U, check_dtype=False)


@pytest.mark.parametrize("name", sorted(SCORES.keys() - {"random", "bn-scale"}))
def test_scores_move_with_their_units_where_hidden_units_change_places(name):
    built = mlp()
    model, structure, _ = built
    batches = batches_for(built)
    order = torch.tensor([3, 0, 4, 2, 1])
    score_U = score_named(name).units(subject_of(model, structure, batches=batches))
    with torch.no_grad():
        model[0].weight.copy_(model[0].weight[order].clone())
        model[0].bias.copy_(model[0].bias[order].clone())
        model[2].weight.copy_(model[2].weight[:, order].clone())
    moved_U = score_named(name).units(subject_of(model, structure, batches=batches))
    assert_close(moved_U[:5], score_U[:5][order])
    assert_close(moved_U[5:], score_U[5:])
    assert not torch.allclose(moved_U[:5], score_U[:5])


@pytest.mark.parametrize("name", WEIGHT_SCORES)
def test_scores_of_weights_have_the_masks_shapes_and_leave_the_model_as_it_was(name):
    built = residual()
    model, structure, _ = built
    masks = masks_of(model)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key in masks:
                parameter *= masks[key]
    before = snapshot(model)
    subject = subject_of(model, structure, batches=batches_for(built))
    scores = weight_score_named(name).weights(subject, masks)
    assert_untouched(model, before)
    assert list(scores) == list(masks)
    for key, mask in masks.items():
        assert scores[key].shape == mask.shape
        assert not scores[key].requires_grad
        assert torch.isfinite(scores[key]).all()
        assert (scores[key] >= 0).all()
        assert (scores[key][~mask] == 0).all()
    assert sum(float(score.sum()) for score in scores.values()) > 0


@pytest.mark.parametrize("name", SCORES)
def test_equal_seeds_give_equal_scores(name):
    built = convnet()
    subjects = [subject_of(*built[:2], batches=batches_for(built), seed=5) for _ in range(2)]
    one_U, other_U = (score_named(name).units(subject) for subject in subjects)
    assert torch.equal(one_U, other_U)


@pytest.mark.parametrize("name", [name for name, make in SCORES.items() if not make().needs_data])
def test_scores_that_need_no_data_take_none(name):
    model, structure, _ = convnet()
    score_named(name).units(subject_of(model, structure, loss=None))


@pytest.mark.parametrize("name", [name for name, make in SCORES.items() if make().needs_data])
def test_scores_that_need_data_say_so(name):
    built = convnet()
    with pytest.raises(UsageError, match=r"none was given\. Pass loss="):
        score_named(name).units(subject_of(*built[:2], batches=batches_for(built), loss=None))
    with pytest.raises(UsageError, match=r"there is no batch to measure it on\. Pass data="):
        score_named(name).units(subject_of(*built[:2], batches=()))


def test_a_loss_that_is_no_finite_scalar_is_refused():
    built = convnet()
    subject = subject_of(
        *built[:2], batches=batches_for(built), loss=lambda model, batch: model(batch[0])
    )
    with pytest.raises(UsageError, match=r"a tensor of shape \[8, 3\], expected a scalar tensor"):
        score_named("taylor").units(subject)
    subject = subject_of(
        *built[:2], batches=batches_for(built), loss=lambda model, batch: model(batch[0]).sum() / 0
    )
    with pytest.raises(UsageError, match="Check the data and the model"):
        score_named("taylor").units(subject)


@pytest.mark.parametrize("name", [name for name, make in SCORES.items() if make().needs_data])
def test_recurrent_layers_are_scored_by_what_their_weights_do(name):
    """Their weights sit in a list beside the parameters, past which replaced weights go unseen."""

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 6, batch_first=True)
            self.fc = nn.Linear(6, 3)

        def forward(self, x):
            return self.fc(self.lstm(x)[0][:, -1])

    model = Recurrent()
    structure = trace(model, torch.zeros(1, 4, 3))
    assert len(structure.families) == 1
    batch = (torch.randn(8, 4, 3), torch.randint(3, (8,)))
    score_U = score_named(name).units(subject_of(model, structure, batches=[batch]))
    assert (score_U > 0).all()


@pytest.mark.parametrize("name", [name for name, make in SCORES.items() if make().needs_data])
def test_what_modules_keep_in_evaluation_mode_is_forgotten(name):
    """As in LeViT, whose cached biases would be stale after a removal, and hold on to a graph."""

    class Caching(nn.Linear):
        cache = None

        def forward(self, x):
            if self.training:
                return super().forward(x)
            self.cache = self.weight * 1 if self.cache is None else self.cache
            return nn.functional.linear(x, self.cache, self.bias)

        def train(self, mode=True):
            self.cache = None if mode else self.cache
            return super().train(mode)

    model = nn.Sequential(Caching(3, 4), nn.ReLU(), nn.Linear(4, 3)).train()
    structure = trace(model, torch.zeros(1, 3))
    batch = (torch.randn(8, 3), torch.randint(3, (8,)))
    score_named(name).units(subject_of(model, structure, batches=[batch]))
    assert model[0].cache is None


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    with pytest.raises(UsageError) as caught:
        score_named("taylr")
    assert str(caught.value) == (
        "No score of units is called 'taylr': use bn-scale, magnitude, magnitude-l1, oracle, "
        "random, snip, synflow, taylor, taylor-second-order, taylor-weights. Did you mean 'taylor'?"
    )
    with pytest.raises(UsageError, match="No score of single weights is called 'oracle'"):
        weight_score_named("oracle")


def test_a_contract_catches_a_score_that_touches_the_model():
    model, structure, _ = convnet()
    before = snapshot(model)
    score = Magnitude()
    subject = subject_of(model, structure)
    assert isinstance(subject, Subject)
    score.units(subject)
    cross_entropy(model, (torch.zeros(2, 3, 6, 6), torch.zeros(2).long())).backward()
    with pytest.raises(AssertionError):
        assert_untouched(model, before)
