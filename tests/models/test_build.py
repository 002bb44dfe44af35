"""The catalogue: published sizes, narrowed nets, and what a wrong request is told."""

import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from secateur.errors import UsageError
from secateur.models import available, build

IMAGE = {"lenet5": 28, "lenet-300-100": 28, "mlp": 28, "digits-resnet": 8}


def shape_of(name: str) -> tuple[int, int]:
    """Channels and size of the images the network was published for."""
    size = IMAGE.get(name, 32)
    return (3 if size == 32 else 1), size


def macs_and_params(name: str, width: float = 1.0) -> tuple[int, int]:
    channels, size = shape_of(name)
    model = build(name, 10, channels, size, width).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, channels, size, size))
    return counter.get_total_flops() // 2, sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [
        # He et al. 2016, table 6: 0.27M, 0.85M, 1.7M; MACs as pruning papers give them.
        ("resnet20", 0.27e6, 40.6e6),
        ("resnet56", 0.85e6, 125.5e6),
        ("resnet110", 1.73e6, 253e6),
        # Liu et al. 2017 and Li et al. 2017: 3.13e8 MACs; 14.72M parameters with one linear layer.
        ("vgg16-bn", 14.72e6, 313e6),
        ("vgg19-bn", 20.04e6, 398e6),
    ],
)
def test_published_size(name, params, macs):
    found_macs, found_params = macs_and_params(name)
    assert found_params == pytest.approx(params, rel=0.005)
    assert found_macs == pytest.approx(macs, rel=0.005)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        # 784*300+300 + 300*100+100 + 100*10+10
        ("lenet-300-100", 266_610),
        # 20*25+20 + 50*20*25+50 + 800*500+500 + 500*10+10
        ("lenet5", 431_080),
        # 784*512+512 + 512*512+512 + 512*10+10
        ("mlp", 669_706),
    ],
)
def test_exact_number_of_parameters(name, params):
    assert macs_and_params(name)[1] == params


def test_option_b_adds_two_projections_with_norms():
    projections = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert macs_and_params("resnet20-b")[1] == macs_and_params("resnet20")[1] + projections


@pytest.mark.parametrize("name", sorted(available()))
def test_every_network_takes_other_classes_channels_and_widths(name):
    _, size = shape_of(name)
    model = build(name, num_classes=7, in_channels=2, image_size=size, width=0.3)
    logits = model(torch.randn(2, 2, size, size))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", sorted(available()))
def test_every_network_starts_with_finite_logits_of_moderate_size(name):
    channels, size = shape_of(name)
    model = build(name, 10, channels, size)
    with torch.no_grad():
        logits = model(torch.randn(8, channels, size, size))
    assert logits.isfinite().all()
    assert 1e-2 < logits.std() < 50


@pytest.mark.parametrize("name", sorted(available()))
def test_every_network_is_determined_by_the_global_seed(name):
    channels, size = shape_of(name)

    def seeded(seed):
        torch.manual_seed(seed)
        return build(name, 10, channels, size, 0.2).state_dict().values()

    first, second, other = seeded(1), seeded(1), seeded(2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_every_relu_is_used_once():
    model = build("resnet20", 10, 3, 32).eval()
    relus = [module for module in model.modules() if isinstance(module, torch.nn.ReLU)]
    calls = []
    for relu in relus:
        relu.register_forward_hook(lambda module, *_: calls.append(module))
    model(torch.zeros(1, 3, 32, 32))
    assert len(relus) == 19
    assert sorted(map(id, calls)) == sorted(map(id, relus))


def test_half_width_takes_about_a_quarter_of_the_macs():
    # Stem and head shrink by half only, everything else by a quarter.
    assert macs_and_params("resnet20", 0.5)[0] == (
        8 * 27 * 32**2  # stem
        + 6 * 8 * 8 * 9 * 32**2
        + (8 * 16 + 5 * 16 * 16) * 9 * 16**2
        + (16 * 32 + 5 * 32 * 32) * 9 * 8**2
        + 32 * 10
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnt20", 10, 3, 32), "There is no model 'resnt20'. Did you mean 'resnet20'"),
        (("qqq", 10, 3, 32), "There is no model 'qqq'. Known names: digits-resnet, lenet-300-100"),
        (
            ("lenet5", 10, 1, 8),
            "Model 'lenet5' cannot process images of 8 pixels: it needs at least 16. Choose larger",
        ),
        (("mlp", 0, 1, 28), "num_classes=0, which must be at least 1. Set num_classes to a"),
        (("mlp", 10, -1, 28), "in_channels=-1, which must be at least 1."),
        (("mlp", 10, 1, 0), "image_size=0, which must be at least 1."),
        (("mlp", 10, 1, 28, 0.0), "width=0.0, which must be more than 0."),
        (("mlp", 10, 1, 28, float("nan")), "width=nan, which must be more than 0."),
        (("mlp", 10, 1, 28, float("inf")), "width=inf"),
    ],
)
def test_wrong_requests_name_the_value_and_the_cure(arguments, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        build(*arguments)


def test_available_describes_every_network_in_order():
    names = list(available())
    assert names == sorted(names)
    assert {"resnet20", "resnet56-b", "vgg16-bn", "lenet5", "digits-resnet", "mlp"} <= set(names)
    assert all(available().values())
