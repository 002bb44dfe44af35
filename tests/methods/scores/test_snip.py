import torch
from torch import nn
from torch.testing import assert_close

from secateur.methods.scores import SNIP, Taylor
from secateur.structure import trace
from tests.methods.scores.subjects import batches_for, cross_entropy, subject_of, total
from tests.methods.scores.test_taylor import inputs, two_units
from tests.structures import convnet


def test_hand_computed_batches_are_averaged_before_signs_are_dropped():
    model, structure = two_units()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [-3.0]]))
    batches = [inputs(1.0), inputs(-1.0), inputs(3.0)]
    subject = subject_of(
        model, structure, batches=batches, loss=lambda model, batch: -total(model, batch)
    )
    # dL/dz = -(2, 0), -(0, 15), -(6, 0); means -8/3 and -15/3
    assert_close(SNIP().units(subject), torch.tensor([8 / 3, 5.0]))
    weights = SNIP().weights(subject, {"0.weight": torch.ones(2, 1), "2.weight": torch.ones(1, 2)})
    assert_close(weights["0.weight"], torch.tensor([[8 / 3], [5.0]]))
    assert_close(weights["2.weight"], torch.tensor([[8 / 3, 5.0]]))


def test_batches_that_disagree_cancel_where_taylor_adds_their_squares():
    model, structure = two_units()
    batches = [(inputs(1.0)[0], 1.0), (inputs(1.0)[0], -1.0)]
    subject = subject_of(
        model,
        structure,
        batches=batches,
        loss=lambda model, batch: batch[1] * total(model, batch),
    )
    assert SNIP().units(subject).tolist() == [0.0, 0.0]
    assert (Taylor().units(subject) > 0).all()


def test_batch_norms_take_the_statistics_of_the_batch():
    """Scaling a filter in front of a batch norm changes nothing then; its statistics are noise."""
    built = convnet()
    model, structure, _ = built
    model.double()
    model.bn1.eps = 1e-14
    batches = [(x.double(), y) for x, y in batches_for(built)]
    before_U = SNIP().units(subject_of(model, structure, batches=batches, loss=cross_entropy))
    with torch.no_grad():
        model.conv1.weight *= 3
        model.bn1.running_mean.fill_(17.0)
    after_U = SNIP().units(subject_of(model, structure, batches=batches, loss=cross_entropy))
    assert_close(after_U, before_U)


def test_weights_the_loss_does_not_depend_on_score_zero():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    structure = trace(model, torch.zeros(1, 2))
    subject = subject_of(
        model,
        structure,
        batches=[torch.ones(4, 2)],
        loss=lambda model, batch: model[0](batch).sum(),
    )
    scores = SNIP().weights(subject, {"2.weight": torch.ones(1, 3), "0.weight": torch.ones(3, 2)})
    assert scores["2.weight"].tolist() == [[0.0, 0.0, 0.0]]
    assert (scores["0.weight"] > 0).all()
