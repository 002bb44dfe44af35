"""Fully connected networks: LeNet-300-100 and a plain MLP.

Source of LeNet-300-100: LeCun et al., "Gradient-based learning applied to document recognition",
Proceedings of the IEEE 1998, section III.C.4 (266,610 parameters at 28x28); ReLU and Glorot
initialisation as in the pruning papers.
Letters: B batch, C channels, H W space, K classes.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from secateur.models._entry import Entry, ModelShape
from secateur.models._initialise import initialise_glorot_
from secateur.models._scale import scaled


class MLP(nn.Module):
    """Linear layers with a ReLU after every hidden one; images are flattened.

    Args:
        in_features: numbers in one flattened input.
        num_classes: length of the output.
        hidden: widths of the hidden layers; empty for a linear classifier.
    """

    def __init__(self, in_features: int, num_classes: int = 10, *, hidden: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = in_features
        for features in hidden:
            layers += [nn.Linear(before, features), nn.ReLU()]
            before = features
        self.hidden = nn.Sequential(*layers)
        self.head = nn.Linear(before, num_classes)
        initialise_glorot_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images or vectors.

        Args:
            x: shape ``[B, C, H, W]`` or ``[B, in_features]``.

        Returns:
            Logits, shape ``[B, K]``.
        """
        logits: Tensor = self.head(self.hidden(x.flatten(1)))
        return logits


def _build(shape: ModelShape, *, hidden: tuple[int, ...]) -> nn.Module:
    in_features = shape.in_channels * shape.image_size**2
    return MLP(
        in_features,
        shape.num_classes,
        hidden=tuple(scaled(features, shape.width) for features in hidden),
    )


ENTRIES = (
    Entry(
        name="lenet-300-100",
        summary="LeNet-300-100: two hidden layers of 300 and 100 units (LeCun et al. 1998)",
        factory=partial(_build, hidden=(300, 100)),
    ),
    Entry(
        name="mlp",
        summary="MLP with two hidden layers of 512 units",
        factory=partial(_build, hidden=(512, 512)),
    ),
)
