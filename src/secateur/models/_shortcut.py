"""Shortcuts of residual blocks that change their shape: zero padding (A) and projection (B).

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (arXiv 1512.03385),
section 3.3.
Letters: B batch, C channels, H W space.
"""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

ShortcutFactory = Callable[[int, int, int], nn.Module]


class ZeroPadShortcut(nn.Module):
    """Takes every other pixel and pads the channels with zeros on both sides (option A).

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, at least ``in_channels``. The zeros are split evenly;
            an odd one goes to the end.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        assert out_channels >= in_channels
        self.pad_front = (out_channels - in_channels) // 2
        self.pad_back = out_channels - in_channels - self.pad_front

    def forward(self, x: Tensor) -> Tensor:
        """Shrink and pad.

        Args:
            x: shape ``[B, C, H, W]``.

        Returns:
            Shape ``[B, pad_front + C + pad_back, ceil(H / 2), ceil(W / 2)]``.
        """
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad_front, self.pad_back))

    def extra_repr(self) -> str:
        """Show the padding in ``print(module)``.

        Returns:
            The two pad widths as text.
        """
        return f"pad_front={self.pad_front}, pad_back={self.pad_back}"


def zero_pad_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Make an option A shortcut: identity where the shape stays, else `ZeroPadShortcut`.

    Args:
        in_channels: channels of the block's input.
        out_channels: channels of the block's output.
        stride: stride of the block, 1 or 2; 1 only where the number of channels stays.

    Returns:
        A module without parameters.
    """
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    assert stride == 2, "the zero padding shortcut always halves height and width"
    return ZeroPadShortcut(in_channels, out_channels)


def projection_shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Make an option B shortcut: identity where the shape stays, else 1x1 convolution and norm.

    Args:
        in_channels: channels of the block's input.
        out_channels: channels of the block's output.
        stride: stride of the block.

    Returns:
        ``nn.Identity`` or ``nn.Sequential(conv, norm)``.
    """
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )
