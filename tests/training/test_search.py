"""attach with the real trace, the real method and real surgery, on nets that train in a second."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from secateur.training import Session, attach
from tests.structures import residual
from tests.training.scripted import assert_same, weights_of

STEPS = 240
IMAGES = torch.randn(256, 3, 6, 6, generator=torch.Generator().manual_seed(1))
LABELS = (IMAGES.mean(dim=(1, 2, 3)) > 0).long()


def batches(start: int = 0, stop: int = STEPS):
    for step in range(start, stop):
        index = torch.randint(256, (32,), generator=torch.Generator().manual_seed(step))
        yield IMAGES[index], LABELS[index]


def train(model, optimizer, data, ema=None) -> None:
    for images, labels in data:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if ema is not None:
            ema.update_parameters(model)


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)


def searched(**settings) -> tuple[nn.Module, Session]:
    model, _, example = residual()
    optimizer = sgd(model)
    session = attach(model, optimizer, example, total_steps=STEPS, **settings)
    train(model, optimizer, batches())
    return model, session


def test_price_zero_is_plain_training_bit_for_bit():
    plain, _, _ = residual()
    train(plain, sgd(plain), batches())
    model, session = searched(price=0.0)
    assert_same(weights_of(model), weights_of(plain))
    assert session.settled
    assert session.macs_share == 1.0


def test_the_same_seed_gives_the_same_network_and_another_seed_other_gates():
    first, one = searched(price=0.5, seed=3)
    second, two = searched(price=0.5, seed=3)
    third, _ = searched(price=0.5, seed=4)
    assert one.macs_share < 0.9
    assert_same(weights_of(first), weights_of(second))
    assert [e["event"] for e in one.events] == [e["event"] for e in two.events]
    different = weights_of(third)
    assert different.keys() != weights_of(first).keys() or any(
        not torch.equal(value, different[name]) for name, value in weights_of(first).items()
    )


def planted() -> tuple[nn.Module, torch.optim.Optimizer, torch.Tensor, torch.Tensor]:
    """A net that already computes its labels; its second block does nothing and cannot learn."""
    model, _, example = residual()
    with torch.no_grad():
        model.block2.bn2.weight.zero_()
        model.block2.bn2.bias.zero_()
        model.fc.weight *= 20
        labels = copy.deepcopy(model)(IMAGES)
        model.fc.bias -= labels.mean(dim=0)
        labels = (labels - labels.mean(dim=0)).argmax(dim=1)
    dead = list(model.block2.parameters())
    rest = [p for name, p in model.named_parameters() if not name.startswith("block2")]
    optimizer = torch.optim.SGD(
        [{"params": rest, "lr": 0.005}, {"params": dead, "lr": 0.0}], lr=0.005, momentum=0.9
    )
    return model, optimizer, example, labels


@pytest.mark.parametrize("layer_share", [0.5, 1.0])
def test_a_planted_useless_block_goes_and_a_vital_one_stays(layer_share):
    model, optimizer, example, labels = planted()
    session = attach(
        model, optimizer, example, price=0.1, layer_share=layer_share, total_steps=STEPS
    )
    for step in range(STEPS):
        index = torch.randint(256, (64,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        F.cross_entropy(model(IMAGES[index]), labels[index]).backward()
        optimizer.step()
    report = session.report()
    assert report.layers_removed == ("block2",)
    assert report.layers_kept == ("block1",)
    if layer_share == 1.0:
        assert all(bool(mask.all()) for mask in session.live.units)


def test_a_resumed_search_ends_with_the_same_bits():
    whole, _, example = residual()
    optimizer = sgd(whole)
    session = attach(whole, optimizer, example, price=0.5, total_steps=STEPS)
    stop = 150
    train(whole, optimizer, batches(0, stop))
    assert session.macs_share < 1.0
    saved = copy.deepcopy((session.state_dict(), whole.state_dict(), optimizer.state_dict()))
    train(whole, optimizer, batches(stop))

    fresh, _, _ = residual()
    optimizer = sgd(fresh)
    again = attach(fresh, optimizer, example, price=0.5, total_steps=STEPS)
    again.load_state_dict(saved[0])
    fresh.load_state_dict(saved[1])
    optimizer.load_state_dict(saved[2])
    train(fresh, optimizer, batches(stop))
    assert again.settled
    assert_same(weights_of(fresh), weights_of(whole))


def test_averages_adam_and_the_scaler_come_along():
    model, _, example = residual()
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    session = attach(model, optimizer, example, target_macs=0.5, total_steps=STEPS, ema=[average])
    for images, labels in batches():
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = F.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        average.update_parameters(model)
    assert session.settled
    assert session.macs_share < 0.75
    assert weights_of(average.module).keys() == weights_of(model).keys()
    for name, value in weights_of(average.module).items():
        assert value.shape == model.state_dict()[name].shape
    assert not [event for event in session.events if event["event"] == "notice"]
