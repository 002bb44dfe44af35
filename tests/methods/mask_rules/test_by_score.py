import re

import pytest
import torch
from torch import nn

from secateur.errors import UsageError
from secateur.masks import Masks
from secateur.methods.mask_rules import ByScore, GlobalMagnitude
from secateur.methods.scores import WEIGHT_SCORES, Subject
from secateur.structure import trace


def subject(net):
    structure = trace(net, torch.zeros(2, 6))
    return Subject(
        model=net,
        structure=structure,
        live=structure.everything(),
        batches=[(torch.randn(32, 6), torch.randint(3, (32,)))],
        loss=lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]),
        generator=torch.Generator(),
    )


def small_net():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    masks = Masks(net, torch.optim.SGD(net.parameters(), lr=0.1))
    return net, masks


@pytest.mark.parametrize("name", sorted(WEIGHT_SCORES))
def test_every_score_of_weights_drives_levels(name):
    net, masks = small_net()
    rule = ByScore(score=name, subject=subject(net), share=0.25)
    for left in (54, 40, 30):  # of 72: ceil of a quarter goes each time
        kept = masks.kept
        masks.set_(rule.next_masks(masks.weights, kept, torch.Generator().manual_seed(left)))
        assert masks.num_kept == left
        assert all(bool((masks.kept[n] <= kept[n]).all()) for n in kept)


def test_by_magnitude_is_global_magnitude():
    net, masks = small_net()
    rules = ByScore(score="magnitude", subject=subject(net)), GlobalMagnitude()
    first, second = (r.next_masks(masks.weights, masks.kept, torch.Generator()) for r in rules)
    assert all(torch.equal(first[n], second[n]) for n in first)


class Half:
    needs_data = False

    def weights(self, subject, masks):
        return {"0.weight": torch.ones(8, 6)}


def test_a_score_that_leaves_a_tensor_out_is_refused():
    net, masks = small_net()
    message = (
        "Half gave nothing for 2.weight of shape [3, 8]. A score of weights has to answer for "
        "every masked tensor."
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        ByScore(score=Half(), subject=subject(net)).next_masks(
            masks.weights, masks.kept, torch.Generator()
        )


def test_an_unknown_score_is_refused_at_once():
    net, _ = small_net()
    with pytest.raises(UsageError, match=r"^No score of single weights is called 'snap': use "):
        ByScore(score="snap", subject=subject(net))
