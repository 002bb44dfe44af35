"""The learning rate, by hand and against torch's own schedulers."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from secateur.training.trainer._learning_rate import learning_rate


def test_it_rises_in_equal_steps_then_follows_half_a_cosine():
    rates = [learning_rate(s, peak=0.8, warmup_steps=4, total_steps=8) for s in range(8)]
    # 0.4 (1 + cos(pi k / 4)): cos 0, 45, 90 and 135 degrees
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.6828427, 0.4, 0.1171573])


def test_without_warm_up_it_is_the_cosine_of_torch():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    scheduler = CosineAnnealingLR(optimizer, T_max=50)
    for step in range(50):
        expected = scheduler.get_last_lr()[0]
        assert learning_rate(step, peak=0.1, warmup_steps=0, total_steps=50) == pytest.approx(
            expected
        )
        optimizer.step()
        scheduler.step()
