"""One network in training, of which rows that have stopped alike so far share every epoch."""

import copy
import dataclasses
import math
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch
from torch import nn

import secateur
from secateur import data, models
from secateur.methods.stoppers import Stopper
from secateur.training.iteration import Chunk


@dataclasses.dataclass(frozen=True)
class Preset:
    """A job: network, pixels, schedule, images of the probe, and eps of the information flow."""

    model: str
    size: int
    batch_size: int
    rate: float
    levels: int
    max_chunks: int
    warm_up: int
    probe: int
    eps: float


class Clock:
    """Adds up seconds under the number of a level, by name; the warm-up is level -1."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.train: dict[int, float] = defaultdict(float)
        self.measure: dict[int, float] = defaultdict(float)

    def now(self) -> float:
        """Seconds the processor worked for this process; of a GPU, those that passed."""
        if self._device == "cpu":
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def measuring(self, level: int) -> Generator[None]:
        """Count a block as measuring."""
        start = self.now()
        try:
            yield
        finally:
            self.measure[level] += self.now() - start


Epochs = tuple[tuple[int, int], ...]
"""Level and number of every epoch trained so far: with rule and seed, it says what the net is."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """The network and its optimizer after an epoch, and the seconds that this epoch took."""

    net: dict
    optimizer: dict
    seconds: float


class Job:
    """One network with its data; every row of a seed starts from the same one.

    Rows of a seed hand on what they have trained in ``trained``.
    """

    def __init__(
        self,
        preset: Preset,
        dataset: data.Dataset,
        seed: int,
        device: str,
        trained: dict[tuple[str, Epochs], Trained],
        rule: str,
    ) -> None:
        torch.manual_seed(seed)
        self.preset = preset
        self.rule = rule
        self.trained = trained
        self.epochs: Epochs = ()
        self.clock = Clock(device)
        self.net = models.build(
            preset.model, dataset.num_classes, dataset.in_channels, dataset.image_size
        ).to(device)
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), lr=preset.rate, momentum=0.9, weight_decay=5e-4
        )
        self.generator = torch.Generator()
        self.seed = seed
        self.train_batches = data.Batches(
            dataset, "train", preset.batch_size, augment=dataset.augment, generator=self.generator,
            drop_last=True, device=device,
        )  # fmt: skip
        self.validation = data.Batches(dataset, "validation", 1024, device=device)
        self.test = data.Batches(dataset, "test", 1024, device=device)
        images, labels = next(iter(data.Batches(dataset, "train", preset.probe, device=device)))
        self.probe = [(images, labels)]
        self.masks = secateur.masks.Masks(self.net, self.optimizer)

    def train(self, chunk: Chunk) -> None:
        """Train an epoch, or take over what another row has made of the same one."""
        level = -1 if chunk.warm_up else chunk.level
        self.epochs = (*self.epochs, (level, chunk.number))
        key = (self.rule if level > 0 else "any", self.epochs)
        known = self.trained.get(key)
        if known is None:
            start = self.clock.now()
            self.train_epoch(chunk)
            seconds = self.clock.now() - start
            known = copy.deepcopy(
                Trained(self.net.state_dict(), self.optimizer.state_dict(), seconds)
            )
            self.trained[key] = known
        else:
            self.net.load_state_dict(known.net)
            self.optimizer.load_state_dict(copy.deepcopy(known.optimizer))
        self.clock.train[level] += known.seconds

    def train_epoch(self, chunk: Chunk) -> None:
        """One epoch, in an order that follows from its number."""
        last = chunk.level == self.preset.levels - 1
        done = chunk.number / chunk.budget
        factor = 0.5 * (1 + math.cos(math.pi * done)) if last else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = self.preset.rate * factor
        self.generator.manual_seed(10_000 * self.seed + 100 * chunk.level + chunk.number)
        self.net.train()
        for images, labels in self.train_batches:
            self.optimizer.zero_grad()
            self.loss(self.net, (images, labels)).backward()
            self.optimizer.step()

    @staticmethod
    def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Cross-entropy."""
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    @torch.no_grad()
    def mean(self, batches: data.Batches, of: Callable) -> float:
        """Average over a split, in evaluation mode."""
        self.net.eval()
        total, count = 0.0, 0
        for images, labels in batches:
            total += float(of(self.net(images), labels))
            count += len(labels)
        return total / count

    def accuracy(self, batches: data.Batches) -> float:
        """Share of a split that is classified right."""
        return self.mean(batches, lambda output, labels: (output.argmax(1) == labels).sum())

    def validation_loss(self) -> float:
        """Cross-entropy on the validation split."""
        return self.mean(
            self.validation, lambda o, y: nn.functional.cross_entropy(o, y, reduction="sum")
        )


class Timed(Stopper):
    """Has another stopper decide, and counts what that costs."""

    def __init__(self, stopper: Stopper, clock: Clock) -> None:
        super().__init__()
        self._stopper = stopper
        self._clock = clock
        self._level = 0

    def level_begins(self, level: int) -> None:
        """Prepare for a level."""
        self._level = level
        with self._clock.measuring(level):
            self._stopper.level_begins(level)

    def should_stop(self, chunks: int) -> bool:
        """Say whether the level is done."""
        with self._clock.measuring(self._level):
            stop = self._stopper.should_stop(chunks)
        self.readings, self.because = self._stopper.readings, self._stopper.because
        return stop

    def level_ends(self, level: int) -> None:
        """Take note that a level has been trained."""
        with self._clock.measuring(level):
            self._stopper.level_ends(level)
