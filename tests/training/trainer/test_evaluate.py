"""Loss and accuracy over a part of the data, by hand."""

import math

import pytest
import torch
from torch import nn

from secateur.training.trainer._evaluate import Tally, evaluate


def test_batches_of_different_sizes_count_by_their_images():
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.9))
    network.train()
    sure = torch.tensor([[math.log(3), 0.0]])
    batches = [
        (sure.repeat(3, 1), torch.tensor([0, 0, 1])),  # right, right, wrong
        (sure, torch.tensor([0])),  # right
    ]
    tally = evaluate(network, batches)
    assert tally.accuracy == 0.75
    # probabilities 3/4, 3/4, 1/4, 3/4
    assert tally.loss == pytest.approx(-(3 * math.log(0.75) + math.log(0.25)) / 4)
    assert network.training


def test_a_tally_goes_on_from_its_sums():
    logits, labels = torch.randn(2, 5, 3), torch.randint(3, (2, 5))
    losses = [nn.functional.cross_entropy(a, b) for a, b in zip(logits, labels, strict=True)]
    whole, first, second = Tally(), Tally(), Tally()
    first.add(losses[0], logits[0], labels[0])
    second.load_state_dict(first.state_dict())
    second.add(losses[1], logits[1], labels[1])
    for i in range(2):
        whole.add(losses[i], logits[i], labels[i])
    assert (second.count, second.loss, second.accuracy) == (10, whole.loss, whole.accuracy)
