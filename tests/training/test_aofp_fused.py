"""AOFP on networks whose consumers are inside fused calls."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur.methods import AOFP
from secateur.training import attach


class Recurrent(nn.Module):
    """Six units, of which nobody reads the second and the fifth."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(4, 6, batch_first=True)
        self.head = nn.Linear(6, 3)
        for weight in (self.layer.weight_hh_l0, self.head.weight):
            weight.data[:, [1, 4]] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(x)[0][:, -1])


class Attending(nn.Module):
    """Six heads of two features, of which nobody reads the second and the fifth."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 12)
        self.layer = nn.MultiheadAttention(12, 6, batch_first=True, dropout=0.1)
        self.head = nn.Linear(12, 3)
        self.layer.out_proj.weight.data[:, [2, 3, 8, 9]] = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(x + self.layer(x, x, x, need_weights=False)[0]).mean(dim=1)


@pytest.mark.parametrize("build", [Recurrent, Attending])
def test_units_that_nothing_reads_leave_layers_and_attention_and_the_others_stay(build):
    torch.manual_seed(0)
    model = build()
    x = torch.randn(16, 5, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    method = AOFP(tolerance=1e-9, steps_per_half=8, warmup=0, settle_at=1)
    session = attach(model, optimizer, x[:2], method=method, total_steps=200)
    (family,) = [f for f, made in enumerate(session.structure.families) if made.kind == "head"]
    before = model.eval()(x).detach()
    model.train()
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(model(x), torch.arange(16) % 3).backward()
        optimizer.step()
    gone = (~session.live.units[family]).nonzero().flatten().tolist()
    assert gone == [1, 4]
    torch.testing.assert_close(model.eval()(x), before)
