"""Random crops with zero padding and horizontal flips of whole batches.

Source: the augmentation of He et al., "Deep Residual Learning for Image Recognition", CVPR 2016
(arXiv 1512.03385), section 4.2: pad 4 pixels on each side, crop, flip.
Letters: B batch, C channels, H W space, N images.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from secateur.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Crops:
    """What is done to each of N images.

    Attributes:
        row: first row of the crop in the padded image, 0 to 2 x padding, int64.
        column: first column of the crop in the padded image, 0 to 2 x padding, int64.
        flip: whether the crop is mirrored left to right, bool.
        padding: pixels of zeros on every side of an image.
    """

    row: Tensor
    column: Tensor
    flip: Tensor
    padding: int

    def select(self, start: int, stop: int, device: torch.device) -> "Crops":
        """Take the crops of images ``start`` to ``stop``.

        Args:
            start: first image.
            stop: image after the last.
            device: where the images are.

        Returns:
            The crops of ``stop - start`` images, on ``device``.
        """
        return Crops(
            row=self.row[start:stop].to(device, non_blocking=True),
            column=self.column[start:stop].to(device, non_blocking=True),
            flip=self.flip[start:stop].to(device, non_blocking=True),
            padding=self.padding,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Augment:
    """How images may be changed without changing their class.

    Attributes:
        padding: largest shift in pixels, at least 0.
        flip: whether half of the images are mirrored left to right.
    """

    padding: int
    flip: bool

    def __post_init__(self) -> None:
        """Check the shift.

        Raises:
            UsageError: ``padding`` is negative.
        """
        if self.padding < 0:
            raise UsageError(
                f"Augmentation was asked for with padding={self.padding}, which must not be "
                "negative. Take 0 for no shift, or one eighth of the image size."
            )

    def draw(self, count: int, generator: torch.Generator) -> Crops:
        """Draw what is done to each of ``count`` images.

        Args:
            count: number of images N.
            generator: on the CPU; it advances by the same amount whatever the settings.

        Returns:
            Independent uniform shifts and fair flips, on the CPU.
        """
        places = 2 * self.padding + 1
        row = torch.randint(places, (count,), generator=generator)
        column = torch.randint(places, (count,), generator=generator)
        coin_N = torch.randint(2, (count,), generator=generator) == 1
        return Crops(
            row=row,
            column=column,
            flip=coin_N if self.flip else torch.zeros_like(coin_N),
            padding=self.padding,
        )


def crop_and_flip(images_BCHW: Tensor, crops: Crops) -> Tensor:
    """Pad every image with zeros, cut a window of the old size out of it, and mirror some.

    Args:
        images_BCHW: shape ``[B, C, H, W]``, any dtype.
        crops: what is done to each of the B images, on the same device.

    Returns:
        Shape, dtype and device of ``images_BCHW``.
    """
    count, _, height, width = images_BCHW.shape
    padded = F.pad(images_BCHW, (crops.padding,) * 4)
    # A view of every window of every image; one gather then takes one window of each image.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    image_B = torch.arange(count, device=images_BCHW.device)
    cropped = windows[image_B, :, crops.row, crops.column]
    return torch.where(crops.flip[:, None, None, None], cropped.flip(3), cropped)
