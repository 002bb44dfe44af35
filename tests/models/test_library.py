"""Models of torchvision and timm by name."""

import builtins
import importlib
import re

import pytest
import torch

from secateur.errors import UsageError
from secateur.models import build

torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("torchvision/resnet18", 32),
        ("torchvision/googlenet", 64),
        ("torchvision/vit_b_16", 32),
        ("torchvision/squeezenet1_1", 64),
        ("timm/resnet10t", 32),
        ("timm/vit_tiny_patch16_224", 32),
    ],
)
def test_the_model_takes_the_images_and_gives_the_classes(name, size):
    model = build(name, num_classes=7, in_channels=1, image_size=size).train()
    assert model(torch.randn(2, 1, size, size)).shape == (2, 7)
    first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
    assert first.in_channels == first.weight.shape[1] == 1


def test_three_channels_leave_torchvisions_own_weights():
    torch.manual_seed(3)
    ours = build("torchvision/resnet18", 10, 3, 32).state_dict()
    torch.manual_seed(3)
    theirs = torchvision.models.resnet18(num_classes=10).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("torchvision/resnet19", 10, 3, 32),
            "torchvision has no classification model 'resnet19'. Did you mean 'resnet18'",
        ),
        (("timm/resnet51", 10, 3, 32), "timm has no classification model 'resnet51'. Did you mean"),
        (("timm/%%%", 10, 3, 32), "timm has no classification model '%%%'. Known names: "),
        # A detector is a model of torchvision, but no classification model.
        (
            ("torchvision/fasterrcnn_resnet50_fpn", 10, 3, 32),
            "torchvision has no classification model 'fasterrcnn_resnet50_fpn'.",
        ),
        (
            ("torchvision/resnet18", 10, 3, 32, 0.5),
            "torchvision/resnet18 was asked for at width 0.5, but only the reference networks",
        ),
        (
            ("torchvision/vit_b_16", 10, 3, 33),
            "torchvision could not build 'vit_b_16' for 3 input channels, 10 classes and images of "
            "33 pixels",
        ),
    ],
)
def test_wrong_requests_name_the_value_and_the_cure(arguments, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        build(*arguments)


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_a_missing_library_names_the_extra(package, monkeypatch):
    real = importlib.import_module

    def absent(name, *rest):
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    message = (
        f"Model {package}/resnet18 needs {package}, which is not installed. "
        "Install it with: pip install '.[vision]' in a clone of secateur."
    )
    with pytest.raises(UsageError, match=re.escape(message)):
        build(f"{package}/resnet18", 10, 3, 32)


def test_a_dependency_missing_inside_the_library_is_not_blamed_on_it(monkeypatch):
    def broken(name, *_):
        raise ModuleNotFoundError("No module named 'yaml'", name="yaml")

    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(builtins.ModuleNotFoundError, match="yaml"):
        build("timm/resnet18", 10, 3, 32)
