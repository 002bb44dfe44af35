"""Random crops and flips against a loop over the images."""

import re

import pytest
import torch
from torch.testing import assert_close

from secateur.data import Augment, Crops, crop_and_flip
from secateur.errors import UsageError


def one_by_one(images, crops):
    """The same, one image and one pixel at a time."""
    count, _, height, width = images.shape
    out = torch.zeros_like(images)
    for b in range(count):
        for row in range(height):
            for column in range(width):
                i = row + int(crops.row[b]) - crops.padding
                j = column + int(crops.column[b]) - crops.padding
                if 0 <= i < height and 0 <= j < width:
                    target = width - 1 - column if crops.flip[b] else column
                    out[b, :, row, target] = images[b, :, i, j]
    return out


def test_hand_computed():
    image = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
    crops = Crops(
        row=torch.tensor([2]), column=torch.tensor([1]), flip=torch.tensor([True]), padding=1
    )
    # One row up, no shift sideways: [[3, 4], [0, 0]]; then mirrored.
    assert crop_and_flip(image, crops).tolist() == [[[[4, 3], [0, 0]]]]


@pytest.mark.parametrize("padding", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
def test_equals_a_loop_over_images(padding, flip):
    images = torch.randint(1, 256, (40, 3, 6, 5), dtype=torch.uint8)
    crops = Augment(padding=padding, flip=flip).draw(40, torch.Generator().manual_seed(0))
    assert_close(crop_and_flip(images, crops), one_by_one(images, crops))


def test_nothing_drawn_leaves_the_images():
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    crops = Augment(padding=0, flip=False).draw(4, torch.Generator())
    assert torch.equal(crop_and_flip(images, crops), images)


def test_every_shift_and_both_directions_are_equally_likely():
    crops = Augment(padding=2, flip=True).draw(50_000, torch.Generator().manual_seed(0))
    for shift in (crops.row, crops.column):
        share = torch.bincount(shift, minlength=5).double() / 50_000
        assert_close(share, torch.full((5,), 0.2).double(), atol=0.01, rtol=0)  # 5 sigma
    assert_close(crops.flip.double().mean().item(), 0.5, atol=0.012, rtol=0)
    together = torch.corrcoef(torch.stack([crops.row, crops.column, crops.flip]).double())
    assert together[0, 1].abs() < 0.025
    assert together[0, 2].abs() < 0.025


def test_the_generator_moves_the_same_way_whatever_the_settings():
    states = []
    for settings in (Augment(padding=4, flip=True), Augment(padding=0, flip=False)):
        generator = torch.Generator().manual_seed(1)
        settings.draw(10, generator)
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_selection_keeps_image_and_crop_together():
    crops = Augment(padding=3, flip=True).draw(10, torch.Generator().manual_seed(0))
    part = crops.select(4, 7, torch.device("cpu"))
    assert torch.equal(part.row, crops.row[4:7])
    assert torch.equal(part.column, crops.column[4:7])
    assert torch.equal(part.flip, crops.flip[4:7])
    assert part.padding == 3


def test_a_negative_shift_is_refused():
    message = "Augmentation was asked for with padding=-1, which must not be negative. Take 0"
    with pytest.raises(UsageError, match=re.escape(message)):
        Augment(padding=-1, flip=False)
