"""Random convolutional and attention networks, as hypothesis strategies.

A network is drawn as a list of blocks; every block knows how many channels it is given and returns
a module and how many it passes on. Sizes are small and spatial extents stay even.
"""

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Scales channels by a gate computed from their means."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, hidden, 1)
        self.up = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = x.mean((2, 3), keepdim=True)
        return x * torch.sigmoid(self.up(F.relu(self.down(gate))))


class Residual(nn.Module):
    """Adds a branch to its input."""

    def __init__(self, branch: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x + self.branch(x))


class Concat(nn.Module):
    """Puts the outputs of several branches side by side."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


class Halves(nn.Module):
    """Sends one half of the channels through a branch, then joins, gates or swaps the halves."""

    def __init__(self, branch: nn.Module, how: str) -> None:
        super().__init__()
        self.branch = branch
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.chunk(2, dim=1)
        a = self.branch(a)
        if self.how == "gate":
            return a * torch.sigmoid(b)
        return torch.cat([b, a] if self.how == "swap" else [a, b], dim=1)


class Shuffle(nn.Module):
    """Shuffles channels between groups, as ShuffleNet does."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        x = x.view(b, self.groups, c // self.groups, h, w).transpose(1, 2)
        return x.reshape(b, c, h, w)


class ZeroPad(nn.Module):
    """Pads channels with zeros on both sides and adds a wider branch."""

    def __init__(self, branch: nn.Module, before: int, after: int) -> None:
        super().__init__()
        self.branch = branch
        self.amounts = (0, 0, 0, 0, before, after)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.amounts) + self.branch(x)


class ChannelScale(nn.Module):
    """Multiplies every channel by a learned number."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class TokenMixer(nn.Module):
    """Attention over positions, with heads that can go, and a branch around it."""

    def __init__(self, channels: int, num_heads: int, head_dim: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, head_dim
        self.query = nn.Linear(channels, num_heads * head_dim)
        self.key = nn.Linear(channels, num_heads * head_dim)
        self.value = nn.Linear(channels, num_heads * head_dim)
        self.out = nn.Linear(num_heads * head_dim, channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        q, k, v = (
            layer(tokens).unflatten(2, (-1, self.head_dim)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.head_dim**-0.5)
        mixed = self.out(mixed.transpose(1, 2).flatten(2))
        return x + mixed.transpose(1, 2).reshape(x.shape)


class Head(nn.Module):
    """Pools or flattens and classifies."""

    def __init__(self, channels: int, size: int, flatten: bool) -> None:
        super().__init__()
        self.flatten = flatten
        self.linear = nn.Linear(channels * (size * size if flatten else 1), 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1) if self.flatten else x.mean((2, 3)))


def _conv(c: int, out: int, draw: st.DrawFn) -> nn.Module:
    kernel = draw(st.sampled_from([1, 3]))
    return nn.Conv2d(c, out, kernel, padding=kernel // 2, bias=draw(st.booleans()))


def _act(draw: st.DrawFn) -> nn.Module:
    return draw(
        st.sampled_from([nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Hardswish(), nn.Tanh()])
    )


def _unit(c: int, out: int, draw: st.DrawFn) -> nn.Module:
    norm = draw(st.sampled_from([nn.BatchNorm2d, nn.InstanceNorm2d, None]))
    parts = [_conv(c, out, draw)]
    if norm is not None:
        parts.append(norm(out, affine=True))
    return nn.Sequential(*parts, _act(draw))


def _branch(c: int, out: int, draw: st.DrawFn) -> nn.Module:
    inner = draw(st.sampled_from([2, 3, 4, 6]))
    return nn.Sequential(_unit(c, inner, draw), _conv(inner, out, draw), nn.BatchNorm2d(out))


_WIDTHS = st.sampled_from([2, 4, 6, 8])
_EVEN = st.sampled_from([4, 8])


def _plain(c: int, draw: st.DrawFn) -> tuple[nn.Module, int]:
    out = draw(_WIDTHS)
    return _unit(c, out, draw), out


def _grouped(c: int, draw: st.DrawFn) -> tuple[nn.Module, int]:
    out = draw(_EVEN)
    return nn.Conv2d(c, out, 3, padding=1, groups=2), out


def _depthwise(c: int, draw: st.DrawFn) -> tuple[nn.Module, int]:
    times = draw(st.sampled_from([1, 2]))
    conv = nn.Conv2d(c, c * times, 3, padding=1, groups=c)
    return nn.Sequential(conv, nn.BatchNorm2d(c * times), _act(draw)), c * times


def _transposed(c: int, draw: st.DrawFn) -> tuple[nn.Module, int]:
    out = draw(_WIDTHS)
    groups = draw(st.sampled_from([1, 2]))
    up = nn.ConvTranspose2d(c, out, 2, stride=2, groups=groups)
    return nn.Sequential(up, nn.AvgPool2d(2)), out


def _residual(c: int, draw: st.DrawFn) -> tuple[nn.Module, int]:
    return Residual(_branch(c, c, draw), draw(st.sampled_from([nn.ReLU(), nn.Identity()]))), c


def _concat(c: int, draw: st.DrawFn) -> tuple[nn.Module, int]:
    outs = draw(st.lists(st.sampled_from([2, 4]), min_size=2, max_size=3))
    branches: list[nn.Module] = [_unit(c, out, draw) for out in outs]
    if draw(st.booleans()):
        return Concat([nn.Identity(), *branches]), c + sum(outs)
    return Concat(branches), sum(outs)


def _halves(c: int, draw: st.DrawFn) -> tuple[nn.Module, int]:
    how = draw(st.sampled_from(["join", "swap", "gate"]))
    half = c // 2
    return Halves(_branch(half, half, draw), how), half if how == "gate" else c


def _shuffle(c: int, draw: st.DrawFn) -> tuple[nn.Module, int]:
    shuffles = [Shuffle(2), nn.ChannelShuffle(2)]
    return draw(st.sampled_from(shuffles)), c


def _pixels(c: int, draw: st.DrawFn) -> tuple[nn.Module, int]:
    mid = draw(st.sampled_from([8, 16]))
    return nn.Sequential(_conv(c, mid, draw), nn.PixelShuffle(2), nn.AvgPool2d(2)), mid // 4


def _unpixels(c: int, draw: st.DrawFn) -> tuple[nn.Module, int]:
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.PixelUnshuffle(2)), c * 4


def _zero_pad(c: int, draw: st.DrawFn) -> tuple[nn.Module, int]:
    before, after = draw(st.sampled_from([(1, 1), (2, 0), (0, 2)]))
    return ZeroPad(_branch(c, c + before + after, draw), before, after), c + before + after


def _squeeze(c: int, draw: st.DrawFn) -> tuple[nn.Module, int]:
    return SqueezeExcite(c, draw(st.sampled_from([2, 4]))), c


def _affine(c: int, draw: st.DrawFn) -> tuple[nn.Module, int]:
    return nn.Sequential(draw(st.sampled_from([ChannelScale(c), nn.PReLU(c)]))), c


def _group_norm(c: int, draw: st.DrawFn) -> tuple[nn.Module, int]:
    return nn.GroupNorm(draw(st.sampled_from([1, 2, c])), c), c


def _pool(c: int, draw: st.DrawFn) -> tuple[nn.Module, int]:
    pools = [nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1), nn.Dropout(0.5), nn.Dropout2d(0.5)]
    return draw(st.sampled_from(pools)), c


def _attention(c: int, draw: st.DrawFn) -> tuple[nn.Module, int]:
    return TokenMixer(c, draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([2, 3]))), c


_BLOCKS = (
    _plain, _grouped, _depthwise, _transposed, _residual, _concat, _halves, _shuffle, _pixels,
    _unpixels, _zero_pad, _squeeze, _affine, _group_norm, _pool, _attention,
)  # fmt: skip
_MAX_CHANNELS = 24


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    """Draw a network for inputs of shape [B, 3, 4, 4]; its weights follow a drawn seed."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    c = draw(_EVEN)
    blocks: list[nn.Module] = [_unit(3, c, draw)]
    for make in draw(st.lists(st.sampled_from(_BLOCKS), min_size=1, max_size=5)):
        if c % 2 or c > _MAX_CHANNELS:
            block, c = _unit(c, 4, draw), 4
            blocks.append(block)
        block, c = make(c, draw)
        blocks.append(block)
    return nn.Sequential(*blocks, Head(c, 4, draw(st.booleans())))
