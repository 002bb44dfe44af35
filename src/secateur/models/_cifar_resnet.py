"""Residual networks for 32x32 images: ResNet-20, ResNet-56, ResNet-110 and their like.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (arXiv 1512.03385),
section 4.2.
Letters: B batch, C channels, H W space, K classes.
"""

from functools import partial

from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.models._entry import Entry, ModelShape
from secateur.models._initialise import initialise_he_
from secateur.models._scale import scaled
from secateur.models._shortcut import ShortcutFactory, projection_shortcut, zero_pad_shortcut


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; every ReLU is a module of its own.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the first convolution and of the shortcut.
        shortcut: makes the shortcut from the three numbers above.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, shortcut: ShortcutFactory
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.shortcut = shortcut(in_channels, out_channels, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual branch to the shortcut.

        Args:
            x: shape ``[B, C, H, W]``.

        Returns:
            Shape ``[B, out_channels, H / stride, W / stride]``.
        """
        branch = self.relu1(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        total: Tensor = self.relu2(branch + self.shortcut(x))
        return total


def residual_stages(
    blocks: tuple[int, ...], channels: tuple[int, ...], shortcut: ShortcutFactory
) -> nn.Sequential:
    """Chain stages of basic blocks; every stage but the first starts with stride 2.

    Args:
        blocks: number of blocks per stage.
        channels: channels per stage; the input has ``channels[0]``.
        shortcut: makes the shortcut of a block.

    Returns:
        A Sequential of one Sequential per stage.
    """
    stages = []
    before = channels[0]
    for number, (depth, width) in enumerate(zip(blocks, channels, strict=True)):
        first = BasicBlock(before, width, 1 if number == 0 else 2, shortcut)
        rest = (BasicBlock(width, width, 1, shortcut) for _ in range(depth - 1))
        stages.append(nn.Sequential(first, *rest))
        before = width
    return nn.Sequential(*stages)


class CifarResNet(nn.Module):
    """A residual network of depth 6n + 2 with three stages of n basic blocks.

    Args:
        depth: number of weighted layers: 20, 32, 44, 56, 110 and so on.
        num_classes: length of the output.
        in_channels: channels of the images.
        width: factor on the published widths 16, 32, 64.
        shortcut: ``zero_pad_shortcut`` (option A, as published) or ``projection_shortcut`` (option
            B).

    Raises:
        UsageError: ``depth`` is not 6n + 2 with n >= 1.

    Example:
        >>> sum(p.numel() for p in CifarResNet(20).parameters())
        269722
    """

    def __init__(
        self,
        depth: int,
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        width: float = 1.0,
        shortcut: ShortcutFactory = zero_pad_shortcut,
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6 != 0:
            raise UsageError(
                f"A CIFAR ResNet of depth {depth} does not exist: it must be 6n + 2 with n >= 1. "
                "Take for instance 20, 32, 44, 56 or 110."
            )
        channels = (scaled(16, width), scaled(32, width), scaled(64, width))
        self.conv = nn.Conv2d(in_channels, channels[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels[0])
        self.relu = nn.ReLU()
        self.stages = residual_stages(((depth - 2) // 6,) * 3, channels, shortcut)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(channels[2], num_classes)
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


def _build(shape: ModelShape, *, depth: int, shortcut: ShortcutFactory) -> nn.Module:
    return CifarResNet(
        depth,
        shape.num_classes,
        in_channels=shape.in_channels,
        width=shape.width,
        shortcut=shortcut,
    )


def _entry(depth: int, option: str, shortcut: ShortcutFactory) -> Entry:
    return Entry(
        name=f"resnet{depth}{'' if option == 'A' else '-b'}",
        summary=f"CIFAR ResNet-{depth}, shortcuts of option {option} (He et al. 2016)",
        factory=partial(_build, depth=depth, shortcut=shortcut),
    )


ENTRIES = tuple(
    _entry(depth, option, shortcut)
    for depth in (20, 56, 110)
    for option, shortcut in (("A", zero_pad_shortcut), ("B", projection_shortcut))
)
