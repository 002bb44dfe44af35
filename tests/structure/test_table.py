"""What `print(structure)` shows."""

import torch
from torch import nn

from secateur.structure import trace


def test_the_table_says_what_there_is_what_it_costs_and_what_stays():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    head, header, row, *rest = str(trace(model, torch.zeros(1, 3))).splitlines()
    # 3 x 4 + 4 x 2 = 20 MACs, and 4 + 2 biases on top make 26 parameters.
    assert head == (
        "1 family, 4 units, 0 removable layers; 20 MACs (FLOPs = 2 x MACs), 26 parameters"
    )
    assert header.split() == ["family", "kind", "units", "MACs", "params", "lives", "in"]
    # Without the hidden units nothing is computed, and of the parameters 2 biases are left.
    assert row.split()[:4] == ["0", "neuron", "4", "100.0%"]
    assert "92.3%" in row
    assert any("is an output of the model" in line for line in rest)


def test_a_family_under_a_shared_statistic_is_marked():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    text = str(trace(model, torch.zeros(1, 3), allow_inexact=True))
    assert "0 ~" in text
    assert "~ inexact: shares a statistic with other units" in text
