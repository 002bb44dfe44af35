"""The training images that scores look at."""

import torch

from secateur import data
from secateur.training import trainer

SETTINGS = trainer.TrainingConfig(epochs=1, batch_size=16, warmup_epochs=0.5, seed=3)
CPU = torch.device("cpu")


def test_the_sample_holds_training_images_once_each_and_as_they_are():
    digits = data.load("digits")
    batches = trainer.training_sample(digits, SETTINGS, 4, CPU)
    assert [len(labels) for _, labels in batches] == [16] * 4
    images = torch.cat([images for images, _ in batches])
    raw = digits.train.images[:].float() / 255
    own = (raw - digits.mean[0]) / digits.std[0]
    equal = (images[:, None] - own[None]).abs().amax(dim=(2, 3, 4)) < 1e-5
    assert equal.any(dim=1).all()
    assert len(torch.unique(images, dim=0)) == 64


def test_the_seed_decides_which_images():
    digits = data.load("digits")
    first = trainer.training_sample(digits, SETTINGS, 1, CPU)[0][0]
    again = trainer.training_sample(digits, SETTINGS, 1, CPU)[0][0]
    other = SETTINGS.model_copy(update={"seed": 4})
    assert torch.equal(first, again)
    assert not torch.equal(first, trainer.training_sample(digits, other, 1, CPU)[0][0])


def test_a_small_data_set_gives_what_it_has():
    digits = data.load("digits", limit=10)
    ((images, labels),) = trainer.training_sample(digits, SETTINGS, 4, CPU)
    assert images.shape == (10, 1, 8, 8)
    assert labels.shape == (10,)


def test_the_loss_is_the_mean_cross_entropy():
    network = torch.nn.Identity()
    logits = torch.tensor([[0.0, 0.0], [0.0, 3.0**0.5]])
    expected = (torch.log(torch.tensor(2.0)) + torch.log1p(torch.tensor(3.0**0.5).exp())) / 2
    loss = trainer.batch_loss(network, (logits, torch.tensor([0, 0])))
    torch.testing.assert_close(loss, expected)
