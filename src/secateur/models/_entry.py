"""What the catalogue of reference networks knows about one network."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """What a network must fit: its input, its output and its width.

    Attributes:
        num_classes: length of the output vector, at least 1.
        in_channels: channels of an input image, at least 1.
        image_size: height and width of an input image in pixels, at least 1.
        width: factor on every hidden width, > 0; 1.0 is the published network.
    """

    num_classes: int
    in_channels: int
    image_size: int
    width: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One network of the catalogue.

    Attributes:
        name: what the user types.
        summary: one line for lists and help texts.
        factory: builds the network, freshly initialised from torch's global generator.
        smallest_image: the smallest image size in pixels that the network can process.
    """

    name: str
    summary: str
    factory: Callable[[ModelShape], nn.Module]
    smallest_image: int = 1
