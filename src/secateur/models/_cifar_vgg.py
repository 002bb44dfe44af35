"""VGG-16 and VGG-19 with batch norm for 32x32 images, as pruning papers use them.

Sources: Simonyan and Zisserman, "Very Deep Convolutional Networks", ICLR 2015 (arXiv 1409.1556),
table 1, D and E; the CIFAR form (four poolings, one linear layer) is that of Liu et al., "Learning
Efficient Convolutional Networks through Network Slimming", ICCV 2017 (arXiv 1708.06519).
Letters: B batch, C channels, H W space, K classes.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from secateur.models._entry import Entry, ModelShape
from secateur.models._initialise import initialise_he_
from secateur.models._scale import scaled

STAGE_WIDTHS = (64, 128, 256, 512, 512)
CONVS_16 = (2, 2, 3, 3, 3)
CONVS_19 = (2, 2, 4, 4, 4)


class CifarVGG(nn.Module):
    """Five stages of 3x3 convolutions with max pooling between them, and one linear layer.

    Args:
        convs: number of convolutions per stage, five numbers.
        num_classes: length of the output.
        in_channels: channels of the images.
        width: factor on the published widths 64, 128, 256, 512, 512.
    """

    def __init__(
        self,
        convs: Sequence[int],
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = in_channels
        for stage, (count, published) in enumerate(zip(convs, STAGE_WIDTHS, strict=True)):
            channels = scaled(published, width)
            layers += [nn.MaxPool2d(2)] if stage > 0 else []
            for _ in range(count):
                layers += _conv_norm_relu(before, channels)
                before = channels
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(before, num_classes)
        initialise_he_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images.

        Args:
            x: shape ``[B, C, H, W]`` with H and W at least 16.

        Returns:
            Logits, shape ``[B, K]``.
        """
        logits: Tensor = self.head(self.pool(self.features(x)).flatten(1))
        return logits


def _conv_norm_relu(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    ]


def _build(shape: ModelShape, *, convs: Sequence[int]) -> nn.Module:
    return CifarVGG(convs, shape.num_classes, in_channels=shape.in_channels, width=shape.width)


ENTRIES = tuple(
    Entry(
        name=f"vgg{depth}-bn",
        summary=f"VGG-{depth} with batch norm for CIFAR (one linear layer)",
        factory=partial(_build, convs=convs),
        smallest_image=16,
    )
    for depth, convs in ((16, CONVS_16), (19, CONVS_19))
)
