"""Batches of normalised images, in order or shuffled and augmented, resumable at any batch.

Letters: B batch, C channels, H W space, N images.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from secateur.data._augment import Augment, Crops, crop_and_flip
from secateur.data._dataset import Dataset, PartName, Split
from secateur.errors import UsageError


class Batches:
    """Iterates over one part of a data set; every ``for`` loop is one epoch.

    All random numbers of an epoch are drawn when it starts, so the state of the generator at that
    moment and the number of batches handed out determine everything that follows.

    Args:
        dataset: where the images come from.
        part: which of its three parts.
        batch_size: images per batch, at least 1.
        augment: changes the images at random; None leaves them as they are.
        generator: on the CPU; shuffles and augments. None keeps the order of the data set.
        drop_last: leave a last batch out that is not full.
        device: where the batches go. Images held in memory are moved there once.
        memory_format: ``torch.channels_last`` for networks that want it.

    Raises:
        UsageError: ``batch_size`` is out of range, ``augment`` comes without ``generator``, or the
            generator is not on the CPU.

    Example:
        >>> from secateur.data import load
        >>> digits = load("digits")
        >>> generator = torch.Generator().manual_seed(0)
        >>> batches = Batches(digits, "train", 64, augment=digits.augment, generator=generator)
        >>> images, labels = next(iter(batches))
        >>> images.shape, labels.shape
        (torch.Size([64, 1, 8, 8]), torch.Size([64]))
    """

    def __init__(
        self,
        dataset: Dataset,
        part: PartName,
        batch_size: int,
        *,
        augment: Augment | None = None,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
        device: torch.device | str = "cpu",
        memory_format: torch.memory_format = torch.contiguous_format,
    ) -> None:
        split: Split = getattr(dataset, part)
        _check(batch_size, len(split), augment, generator, drop_last)
        self._device = torch.device(device)
        self._images = split.images
        if isinstance(split.images, Tensor):
            self._images = split.images.to(self._device)
        self._labels = split.labels.to(self._device)
        scale = torch.tensor([dataset.mean, dataset.std], device=self._device) * 255
        self._mean, self._std = scale[:, None, :, None, None]
        self._batch_size = batch_size
        self._augment = augment
        self._generator = generator
        self._drop_last = drop_last
        self._memory_format = memory_format
        self._epoch = 0
        self._position = 0
        self._resume_at = 0
        self._started_from = None if generator is None else generator.get_state()

    def __len__(self) -> int:
        full, rest = divmod(len(self._labels), self._batch_size)
        return full if self._drop_last or rest == 0 else full + 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Start an epoch, or go on with the one that `load_state_dict` brought back.

        Yields:
            Images, float32 with mean 0 and deviation 1 over the training images, shape
            ``[B, C, H, W]``, and labels, int64, shape ``[B]``.
        """
        order_N, crops = self._draw()
        first, self._resume_at = self._resume_at, 0
        for number in range(first, len(self)):
            start = number * self._batch_size
            stop = min(start + self._batch_size, len(order_N))
            self._position = number + 1
            if self._position == len(self):
                self._close_epoch()
            part = crops.select(start, stop, self._device) if crops else None
            yield self._batch(order_N[start:stop], part)

    @property
    def epoch(self) -> int:
        """Number of epochs whose last batch was handed out."""
        return self._epoch

    def state_dict(self) -> dict[str, int | Tensor]:
        """Describe which batch comes next.

        Returns:
            Finished epochs, batches handed out in this epoch and, if there is a generator, its
            state at the start of this epoch (uint8, on the CPU).
        """
        state: dict[str, int | Tensor] = {"epoch": self._epoch, "position": self._position}
        if self._started_from is not None:
            state["generator"] = self._started_from.clone()
        return state

    def load_state_dict(self, state: Mapping[str, int | Tensor]) -> None:
        """Make the next ``for`` loop go on where the described one stood.

        Args:
            state: what `state_dict` returned for batches of the same part, size and settings.

        Raises:
            UsageError: the state does not belong to batches like these.
        """
        epoch, position = state.get("epoch"), state.get("position")
        generator_state = state.get("generator")
        fits = isinstance(generator_state, Tensor) == (self._generator is not None)
        if not isinstance(epoch, int) or not isinstance(position, int) or not fits:
            raise UsageError(
                f"The state of batches has the entries {sorted(state)}, but needs epoch, position "
                "and, for shuffled batches only, generator. Give what state_dict() returned."
            )
        if not 0 <= position < len(self):
            raise UsageError(
                f"The state of batches stands at batch {position}, but an epoch has {len(self)}. "
                "Resume with the data and the batch size of the interrupted run."
            )
        if self._generator is not None and isinstance(generator_state, Tensor):
            self._generator.set_state(generator_state)
            self._started_from = generator_state.clone()
        self._epoch, self._position, self._resume_at = epoch, position, position

    def _draw(self) -> tuple[Tensor, Crops | None]:
        count = len(self._labels)
        if self._generator is None:
            return torch.arange(count, device=self._device), None
        self._started_from = self._generator.get_state()
        order_N = torch.randperm(count, generator=self._generator)
        crops = self._augment.draw(count, self._generator) if self._augment else None
        return order_N.to(self._device), crops

    def _close_epoch(self) -> None:
        self._epoch += 1
        self._position = 0
        if self._generator is not None:
            self._started_from = self._generator.get_state()

    def _batch(self, index_B: Tensor, crops: Crops | None) -> tuple[Tensor, Tensor]:
        images = self._images[index_B].to(self._device, non_blocking=True)
        if crops is not None:
            images = crop_and_flip(images, crops)
        normalised = images.float().sub_(self._mean).div_(self._std)
        return normalised.contiguous(memory_format=self._memory_format), self._labels[index_B]


def _check(
    batch_size: int,
    count: int,
    augment: Augment | None,
    generator: torch.Generator | None,
    drop_last: bool,
) -> None:
    if batch_size < 1 or (drop_last and batch_size > count):
        raise UsageError(
            f"Batches of {batch_size} images were asked for, but the part has {count} images. "
            f"Choose a batch size of at least 1{f' and at most {count}' if drop_last else ''}."
        )
    if augment is not None and generator is None:
        raise UsageError(
            "Augmented batches were asked for without a generator, but augmentation is random. "
            "Give generator=torch.Generator().manual_seed(seed), or leave augment out."
        )
    if generator is not None and generator.device.type != "cpu":
        raise UsageError(
            f"The generator of the batches is on {generator.device}, but must be on the CPU so "
            "that every device sees the same images. Give torch.Generator()."
        )
