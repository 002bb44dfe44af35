"""The parts of a run as its config asks for them."""

import re

import pytest
import torch

from secateur.errors import UsageError
from secateur.training.trainer._parts import build_optimizer, build_parts, count_macs
from tests.training.trainer.tiny_runs import tiny_config


def test_norms_and_biases_get_no_weight_decay():
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    settings = tiny_config(weight_decay=0.25, lr=0.5, momentum=0.75).training
    optimizer = build_optimizer(settings, model)
    decay = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    found = {name: decay[id(p)] for name, p in model.named_parameters()}
    assert found == {"0.weight": 0.25, "0.bias": 0.0, "1.weight": 0.0, "1.bias": 0.0}
    assert isinstance(optimizer, torch.optim.SGD)
    assert {(group["lr"], group["momentum"]) for group in optimizer.param_groups} == {(0.5, 0.75)}


def test_adamw_takes_the_momentum_for_its_first_beta():
    settings = tiny_config(optimizer="adamw", momentum=0.8).training
    optimizer = build_optimizer(settings, torch.nn.Linear(2, 2))
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.999)}


def test_macs_of_one_image_by_hand():
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3),  # 6 x 6 places, 2 x 9 products each
        torch.nn.BatchNorm2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(72, 5),
    )
    assert count_macs(net, torch.zeros(1, 1, 8, 8)) == 36 * 18 + 72 * 5
    assert net.training
    assert net[1].num_batches_tracked == 0


def test_channels_last_holds_for_weights_and_images():
    parts = build_parts(tiny_config(channels_last=True))
    images, _ = next(iter(parts.train))
    assert images.is_contiguous(memory_format=torch.channels_last)
    weight = parts.model.get_parameter("stages.0.0.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


def test_only_full_batches_are_trained_on_and_every_image_is_validated():
    parts = build_parts(tiny_config(batch_size=100))
    assert [len(labels) for _, labels in parts.train] == [100, 100, 100]
    assert sum(len(labels) for _, labels in parts.validation) == 269
    assert sum(len(labels) for _, labels in parts.test) == 450


def test_a_batch_larger_than_the_data_is_the_data():
    assert [len(labels) for _, labels in build_parts(tiny_config(batch_size=4096)).train] == [320]


def test_without_augmentation_every_epoch_has_the_same_images():
    def pixels(**settings):
        images = torch.cat([images for images, _ in build_parts(tiny_config(**settings)).train])
        return images.flatten(1).sort(dim=0).values

    assert torch.equal(pixels(augment=False, seed=1), pixels(augment=False, seed=2))
    assert not torch.equal(pixels(augment=True, seed=1), pixels(augment=False, seed=1))


def test_half_precision_with_a_scaler_needs_a_gpu():
    with pytest.raises(UsageError, match="is '16-mixed', which needs a GPU, but the run is on the"):
        build_parts(tiny_config(precision="16-mixed"))


def test_a_missing_gpu_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = "training.device is 'cuda', but torch sees no GPU on this machine. Set it to 'auto'"
    with pytest.raises(UsageError, match=re.escape(message)):
        build_parts(tiny_config(device="cuda"))
