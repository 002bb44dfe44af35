import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from secateur.errors import StorageError, UsageError
from secateur.masks import Masks, compress, decompress_


def build():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, bias=False))
    net.append(nn.Conv2d(8, 8, 3))
    net[3].weight = net[2].weight  # a tie
    return net


def masked():
    net = build()
    masks = Masks(net, torch.optim.SGD(net.parameters(), lr=0.1))
    masks.set_({name: torch.rand(w.shape) < 0.1 for name, w in masks.weights.items()})
    net(torch.randn(2, 3, 9, 9))  # running statistics
    return net, masks


def test_a_file_returns_the_model_and_its_masks_bit_for_bit(tmp_path):
    net, masks = masked()
    save_file(compress(net, masks.kept), tmp_path / "sparse.safetensors")
    other = build()
    kept = decompress_(other, load_file(tmp_path / "sparse.safetensors"))
    assert kept.keys() == masks.kept.keys()
    for name, mask in masks.kept.items():
        assert torch.equal(kept[name], mask)
    for name, value in net.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_a_masked_weight_takes_a_bit_each_and_the_values_that_are_left():
    net, masks = masked()
    written = compress(net, masks.kept)
    num_kept = int(masks.kept["2.weight"].sum())
    assert written["2.weight.mask_bits"].numel() == 8 * 8 * 9 // 8
    assert written["2.weight.mask_values"].shape == (num_kept,)
    assert "2.weight" not in written
    assert not any(name.startswith("3.weight") for name in written)


def changed(written, name, value):
    return {k: v for k, v in {**written, name: value}.items() if v is not None}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "3.bias",
            None,
            "3.bias of shape [8] is not in the file. Build the model that was written.",
        ),
        (
            "3.bias",
            torch.zeros(3),
            "3.bias of shape [8] has shape [3] there. Build the model that was written.",
        ),
        (
            "foreign",
            torch.zeros(3),
            "The file holds foreign, which this Sequential does not have. Build the model that "
            "was written.",
        ),
        (
            "0.weight.mask_bits",
            torch.zeros(27, dtype=torch.uint8),
            "The mask of 0.weight keeps 0 weights, and the file holds values of shape",
        ),
        (
            "0.weight.mask_bits",
            torch.zeros(26, dtype=torch.uint8),
            "0.weight cannot be read. A mask of shape [8, 3, 3, 3] is stored in 27 bytes",
        ),
        ("0.weight.mask_values", None, "and the file holds no values."),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(name, value, message):
    net, masks = masked()
    written = changed(compress(net, masks.kept), name, value)
    other = build()
    before = {n: v.clone() for n, v in other.state_dict().items()}
    with pytest.raises(StorageError, match=re.escape(message)):
        decompress_(other, written)
    assert all(torch.equal(before[n], v) for n, v in other.state_dict().items())


def test_a_mask_for_nothing_is_refused():
    net, _ = masked()
    with pytest.raises(UsageError, match=r"^There is a mask for 'x', which this Sequential"):
        compress(net, {"x": torch.ones(1, dtype=torch.bool)})
