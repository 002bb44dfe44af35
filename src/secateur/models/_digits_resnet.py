"""A small, deliberately too large residual network for 8x8 digits, the network of the demo.

Letters: B batch, C channels, H W space, K classes.
"""

from torch import Tensor, nn

from secateur.models._cifar_resnet import residual_stages
from secateur.models._entry import Entry, ModelShape
from secateur.models._initialise import initialise_he_
from secateur.models._scale import scaled
from secateur.models._shortcut import projection_shortcut

BLOCKS = (3, 3, 2)
WIDTHS = (32, 64, 128)


class DigitsResNet(nn.Module):
    """Residual blocks in three stages of 32, 64 and 128 channels.

    Args:
        num_classes: length of the output.
        in_channels: channels of the images.
        width: factor on the widths 32, 64, 128.
    """

    def __init__(self, num_classes: int = 10, *, in_channels: int = 1, width: float = 1.0) -> None:
        super().__init__()
        channels = tuple(scaled(published, width) for published in WIDTHS)
        self.conv = nn.Conv2d(in_channels, channels[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels[0])
        self.relu = nn.ReLU()
        self.stages = residual_stages(BLOCKS, channels, projection_shortcut)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels[-1], num_classes)
        initialise_he_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images.

        Args:
            x: shape ``[B, C, H, W]``.

        Returns:
            Logits, shape ``[B, K]``.
        """
        features = self.stages(self.relu(self.bn(self.conv(x))))
        logits: Tensor = self.head(self.pool(features).flatten(1))
        return logits


def _build(shape: ModelShape) -> nn.Module:
    return DigitsResNet(shape.num_classes, in_channels=shape.in_channels, width=shape.width)


ENTRIES = (
    Entry(
        name="digits-resnet",
        summary="residual network of eight blocks for 8x8 digits, the network of the demo",
        factory=_build,
    ),
)
