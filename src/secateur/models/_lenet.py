"""LeNet-5 in the Caffe version (20-50-500) that pruning papers use.

Sources: LeCun et al., "Gradient-based learning applied to document recognition", Proceedings of
the IEEE 1998; the widths, the max pooling and the single ReLU are those of Caffe's example
``lenet_train_test.prototxt`` (431,080 parameters at 28x28).
Letters: B batch, C channels, H W space, K classes.
"""

from torch import Tensor, nn

from secateur.models._entry import Entry, ModelShape
from secateur.models._initialise import initialise_glorot_
from secateur.models._scale import scaled

# Two times: a 5x5 convolution without padding, then halving.
SMALLEST_IMAGE = 16


class LeNet5(nn.Module):
    """Two 5x5 convolutions with max pooling and two linear layers with a ReLU between them.

    Args:
        num_classes: length of the output.
        in_channels: channels of the images.
        image_size: height and width of the images in pixels, at least 16.
        width: factor on the widths 20, 50, 500.
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        in_channels: int = 1,
        image_size: int = 28,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        assert image_size >= SMALLEST_IMAGE
        first, second, hidden = scaled(20, width), scaled(50, width), scaled(500, width)
        side = ((image_size - 4) // 2 - 4) // 2
        self.conv1 = nn.Conv2d(in_channels, first, 5)
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(second * side * side, hidden)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(hidden, num_classes)
        initialise_glorot_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images.

        Args:
            x: shape ``[B, C, H, W]``.

        Returns:
            Logits, shape ``[B, K]``.
        """
        x = self.pool1(self.conv1(x))
        x = self.pool2(self.conv2(x))
        logits: Tensor = self.fc2(self.relu(self.fc1(x.flatten(1))))
        return logits


def _build(shape: ModelShape) -> nn.Module:
    return LeNet5(
        shape.num_classes,
        in_channels=shape.in_channels,
        image_size=shape.image_size,
        width=shape.width,
    )


ENTRIES = (
    Entry(
        name="lenet5",
        summary="LeNet-5, Caffe version 20-50-500 (LeCun et al. 1998)",
        factory=_build,
        smallest_image=SMALLEST_IMAGE,
    ),
)
