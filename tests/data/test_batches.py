"""Batches: normalisation, order, determinism and resuming."""

import re

import pytest
import torch
from torch.testing import assert_close

from secateur.data import Augment, Batches, Split, in_memory_dataset
from secateur.errors import UsageError

AUGMENT = Augment(padding=2, flip=True)


def make_split(count):
    # Channel 0 of image n is n everywhere in the middle, so that a batch tells which images it has.
    images = torch.randint(0, 256, (count, 2, 8, 8), dtype=torch.uint8)
    images[:, 0] = torch.arange(count)[:, None, None]
    return Split(images=images, labels=torch.arange(count) % 3)


@pytest.fixture
def toy():
    train, validation, test = (make_split(count) for count in (50, 9, 10))
    return in_memory_dataset(
        "toy", train=train, validation=validation, test=test, class_names=("x", "y", "z"), flip=True
    )


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def which(images, toy):
    """Numbers of the images of a batch, read off a pixel that no shift reaches."""
    pixel = images[:, 0, 4, 4].double() * toy.std[0] + toy.mean[0]
    return (pixel * 255).round().long().tolist()


def equal(first, second):
    return len(first) == len(second) and all(
        torch.equal(a, b)
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_without_a_generator_the_part_comes_in_order(toy):
    batches = list(Batches(toy, "validation", 4))
    assert [len(labels) for _, labels in batches] == [4, 4, 1]
    assert [n for images, _ in batches for n in which(images, toy)] == list(range(9))
    assert torch.equal(torch.cat([labels for _, labels in batches]), toy.validation.labels)


def test_training_images_have_mean_zero_and_deviation_one(toy):
    images = torch.cat([images for images, _ in Batches(toy, "train", 16)])
    assert images.dtype == torch.float32
    by_channel = images.double().transpose(0, 1).flatten(1)
    assert_close(by_channel.mean(1), torch.zeros(2).double(), atol=1e-6, rtol=0)
    assert_close(by_channel.std(1, correction=0), torch.ones(2).double(), atol=1e-6, rtol=0)


def test_normalisation_by_hand(toy):
    images, _ = next(iter(Batches(toy, "test", 10)))
    value = int(toy.test.images[3, 1, 2, 5])
    assert images[3, 1, 2, 5].item() == pytest.approx((value / 255 - toy.mean[1]) / toy.std[1])


@pytest.mark.parametrize("augment", [None, AUGMENT])
def test_an_epoch_shows_every_image_once_with_its_label(toy, augment):
    seen = []
    for images, labels in Batches(toy, "train", 16, augment=augment, generator=seeded()):
        numbers = which(images, toy)
        seen += numbers
        assert [n % 3 for n in numbers] == labels.tolist()
    assert sorted(seen) == list(range(50))
    assert seen != list(range(50))


def test_epochs_differ(toy):
    batches = Batches(toy, "train", 50, augment=AUGMENT, generator=seeded())
    (first, _), (second, _) = next(iter(batches)), next(iter(batches))
    assert which(first, toy) != which(second, toy)


def test_the_same_seed_gives_the_same_batches(toy):
    settings = {"augment": AUGMENT, "batch_size": 16}
    runs = [list(Batches(toy, "train", generator=seeded(n), **settings)) for n in (5, 5, 6)]
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2])


def test_augmented_borders_are_black(toy):
    """A pixel shifted in from outside is 0 before normalisation, -mean / deviation after."""
    augment = Augment(padding=8, flip=False)
    batches = Batches(toy, "train", 50, augment=augment, generator=seeded())
    images, _ = next(iter(batches))
    black = -toy.mean[1] / toy.std[1]
    outside = (images[:, 1] - black).abs() < 1e-6
    assert outside.flatten(1).any(1).double().mean() > 0.9


@pytest.mark.parametrize(("drop_last", "sizes"), [(False, [16, 16, 16, 2]), (True, [16, 16, 16])])
def test_length_counts_the_batches(toy, drop_last, sizes):
    batches = Batches(toy, "train", 16, drop_last=drop_last)
    assert [len(labels) for _, labels in batches] == sizes
    assert len(batches) == len(sizes)
    assert len(Batches(toy, "train", 25, drop_last=drop_last)) == 2


def test_channels_last_only_changes_the_layout(toy):
    plain, _ = next(iter(Batches(toy, "test", 10)))
    last, _ = next(iter(Batches(toy, "test", 10, memory_format=torch.channels_last)))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert plain.is_contiguous()
    assert torch.equal(plain, last)


@pytest.mark.parametrize("batches_before", range(9))
def test_resuming_anywhere_goes_on_as_if_uninterrupted(toy, batches_before):
    """Epochs of four batches; the state is taken while a batch is in use, as a loop does."""

    def make(seed):
        return Batches(toy, "train", 16, augment=AUGMENT, generator=seeded(seed))

    through = make(0)
    whole = [batch for _ in range(3) for batch in through]
    interrupted, state, done = make(0), None, 0
    if batches_before == 0:
        state = interrupted.state_dict()
    while state is None:
        for _ in interrupted:
            done += 1
            if done == batches_before:
                state = interrupted.state_dict()
                break
    resumed = make(99)
    resumed.load_state_dict(state)
    assert resumed.epoch == batches_before // 4
    rest = []
    while len(rest) < 12 - batches_before:
        rest += list(resumed)
    assert equal(rest, whole[batches_before:])
    assert resumed.epoch == through.epoch == 3


def test_resuming_works_without_a_generator(toy):
    batches = Batches(toy, "train", 16)
    next(iter(batches))
    other = Batches(toy, "train", 16)
    other.load_state_dict(batches.state_dict())
    assert equal(list(other), list(Batches(toy, "train", 16))[1:])


def test_a_state_is_not_changed_by_what_follows(toy):
    batches = Batches(toy, "train", 16, generator=seeded())
    state = batches.state_dict()
    kept = state["generator"].clone()
    list(batches)
    assert torch.equal(state["generator"], kept)
    assert (state["epoch"], state["position"]) == (0, 0)


def test_the_global_generator_is_left_alone(toy):
    before = torch.get_rng_state()
    list(Batches(toy, "train", 16, augment=AUGMENT, generator=seeded()))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "Batches of 0 images were asked for, but the part has 50 images."),
        (
            {"batch_size": 51, "drop_last": True},
            "Choose a batch size of at least 1 and at most 50.",
        ),
        (
            {"batch_size": 4, "augment": AUGMENT},
            "without a generator, but augmentation is random. Give generator=",
        ),
    ],
)
def test_wrong_settings_name_the_value_and_the_cure(toy, settings, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        Batches(toy, "train", **settings)


def test_a_foreign_state_is_refused(toy):
    ordered, shuffled = Batches(toy, "train", 16), Batches(toy, "train", 16, generator=seeded())
    with pytest.raises(UsageError, match=r"has the entries \['epoch', 'generator', 'position'\]"):
        ordered.load_state_dict(shuffled.state_dict())
    with pytest.raises(UsageError, match=r"has the entries \['epoch', 'position'\], but needs"):
        shuffled.load_state_dict(ordered.state_dict())
    with pytest.raises(UsageError, match=r"has the entries \[\], but needs"):
        ordered.load_state_dict({})
    with pytest.raises(UsageError, match=r"stands at batch 3, but an epoch has 2\. Resume with"):
        Batches(toy, "train", 25).load_state_dict({"epoch": 0, "position": 3})
