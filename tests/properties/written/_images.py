"""Blocks on feature maps, ``x`` of shape [B, C, H, W] with H = W = 4."""

from __future__ import annotations

from tests.properties.written._source import Block

ACTS = ("F.relu", "F.gelu", "F.silu", "torch.sigmoid", "torch.tanh", "F.hardswish")


def _conv(b: Block, c: int, out: int, groups: int = 1) -> str:
    kernel = b.pick(1, 3)
    bias = b.chance(0.5)
    return b.module(
        f"nn.Conv2d({c}, {out}, {kernel}, padding={kernel // 2}, groups={groups}, bias={bias})"
    )


def _norm(b: Block, c: int) -> str:
    return b.module(b.pick(f"nn.BatchNorm2d({c})", f"nn.InstanceNorm2d({c}, affine=True)"))


def plain(b: Block, c: int, out: int) -> None:
    """Convolution, norm, activation, now and then grouped."""
    groups = 2 if c % 2 == 0 and out % 2 == 0 and b.chance(0.3) else 1
    b.do(f"x = {_conv(b, c, out, groups)}(x)")
    if b.chance(0.6):
        b.do(f"x = {_norm(b, out)}(x)")
    b.do(f"x = {b.pick(*ACTS)}(x)")


def inverted(b: Block, c: int, out: int) -> None:
    """Wide inside, depthwise, squeezed and excited."""
    hidden = b.pick(4, 6, 8)
    b.do(f"x = {b.pick(*ACTS)}({_norm(b, hidden)}({_conv(b, c, hidden)}(x)))")
    times = b.pick(1, 1, 2)
    deep = b.module(f"nn.Conv2d({hidden}, {hidden * times}, 3, padding=1, groups={hidden})")
    b.do(f"x = {deep}(x)")
    if b.chance(0.6):
        _squeeze(b, hidden * times)
    b.do(f"x = {_conv(b, hidden * times, out)}(x)")


def _squeeze(b: Block, c: int) -> None:
    hidden = b.pick(2, 3)
    kind = b.pick("conv", "linear", "view", "eca")
    if kind == "conv":
        down, up = (
            b.module(f"nn.Conv2d({c}, {hidden}, 1)"),
            b.module(f"nn.Conv2d({hidden}, {c}, 1)"),
        )
        b.do(f"gate = {up}(F.relu({down}(F.adaptive_avg_pool2d(x, 1))))")
    elif kind == "linear":
        b.do(f"gate = {b.linear(hidden, c)}(F.relu({b.linear(c, hidden)}(x.mean((2, 3)))))")
        b.do("gate = gate[:, :, None, None]")
    elif kind == "view":
        b.do(f"gate = {b.linear(c, c)}(x.amax((2, 3)).flatten(1))")
        b.do(f"gate = gate.view(x.shape[0], {b.shape([(c, 'x.shape[1]'), 1, 1], 0)})")
    else:
        b.do(f"gate = {b.module('nn.Conv1d(1, 1, 3, padding=1)')}(x.mean((2, 3)).unsqueeze(1))")
        b.do("gate = gate.transpose(1, 2).unsqueeze(-1)")
    b.do(f"x = x * {b.pick('torch.sigmoid(gate)', 'gate.sigmoid().expand_as(x)')}")


def parts(b: Block, c: int, out: int) -> None:
    """Res2Net, MixConv and ShuffleNet: parts are convolved, one feeds the next, and joined."""
    number = b.pick(2, 2, 3)
    sizes = [b.pick(1, 2, 3, 4) for _ in range(number)]
    if b.chance(0.6):
        sizes = [sizes[0]] * number
    b.do(f"x = {_conv(b, c, sum(sizes))}(x)")
    names = b.cut("x", sizes, axis=1)
    cascade = len(set(sizes)) == 1 and b.chance(0.5)
    for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
        if cascade and i:
            b.do(f"{name} = {name} + {names[i - 1]}")
        if b.chance(0.7):
            groups = size if b.chance(0.4) else 1
            b.do(f"{name} = {_conv(b, size, size, groups)}({name})")
    order = list(names)
    b.rng.shuffle(order)
    if cascade and b.chance(0.3):
        b.do(f"x = {' + '.join(order)}")
        b.do(f"x = {_conv(b, sizes[0], out)}(x)")
        return
    b.do(f"x = torch.cat([{', '.join(order)}], dim=1)")
    b.do(f"x = {_conv(b, sum(sizes), out)}(x)")


def shuffled(b: Block, c: int, out: int) -> None:
    """Grouped convolution, channel shuffle, grouped convolution."""
    groups, inner = b.pick((2, 2), (2, 3), (2, 4), (3, 2))
    wide = groups * inner
    b.do(f"x = {_conv(b, c, wide)}(x)")
    if b.chance(0.6):
        b.do(f"x = {_conv(b, wide, wide, groups)}(x)")
    if b.chance(0.3):
        b.do(f"x = {b.module(f'nn.ChannelShuffle({groups})')}(x)")
    else:
        tail = "x.shape[2], x.shape[3]"
        dims = [groups, (inner, f"x.shape[1] // {groups}")]
        b.do(f"x = x.reshape(x.shape[0], {b.shape(dims, 1)}, {tail}).transpose(1, 2)")
        b.do(f"x = x.reshape(x.shape[0], {b.shape([wide], 0)}, x.shape[-2], x.shape[-1])")
    b.do(f"x = {_conv(b, wide, wide, b.pick(1, groups, wide))}(x)")
    b.do(f"x = {_conv(b, wide, out)}(x)")


def dense(b: Block, c: int, out: int) -> None:
    """Every layer sees all before it; constants and coordinates may be joined in."""
    b.do("seen = [x]")
    total = c
    for _ in range(b.pick(1, 2, 3)):
        grow = b.pick(1, 2, 3)
        b.do(f"seen.append({b.pick(*ACTS)}({_conv(b, total, grow)}(torch.cat(seen, 1))))")
        total += grow
    if b.chance(0.3):
        b.do("seen.insert(1, torch.linspace(0, 1, 4).to(x).expand(x.shape[0], 1, 4, 4))")
        total += 1
    b.do(f"x = {_conv(b, total, out)}(torch.cat(seen, 1))")


def split_attention(b: Block, c: int, out: int) -> None:
    """ResNeSt and selective kernels: versions of the same channels, weighted by a softmax."""
    wide, radix = b.pick(2, 3, 4), b.pick(2, 3)
    b.do(f"x = F.relu({_conv(b, c, wide * radix)}(x))")
    b.do(f"x = x.reshape(x.shape[0], {b.shape([radix, wide], 1)}, 4, 4)")
    b.do(f"gate = {b.linear(wide, wide * radix)}(x.sum(1).mean((2, 3)))")
    b.do(f"gate = gate.view(x.shape[0], {b.shape([radix, wide], 1)}).softmax(1)")
    b.do("x = (x * gate[..., None, None]).sum(1)")
    b.do(f"x = {_conv(b, wide, out)}(x)")


def pixels(b: Block, c: int, out: int) -> None:
    """Move channels into space and back."""
    wide = b.pick(4, 8, 12)
    kind = b.pick("shuffle", "unshuffle", "both", "unfold", "transposed", "patches")
    if kind == "transposed":
        groups = 2 if c % 2 == 0 and b.chance(0.4) else 1
        b.do(f"x = {b.module(f'nn.ConvTranspose2d({c}, {wide}, 2, stride=2, groups={groups})')}(x)")
        b.do(f"x = {_conv(b, wide, out)}(F.avg_pool2d(x, 2))")
        return
    b.do(f"x = {_conv(b, c, wide)}(x)")
    if kind == "unshuffle":
        b.do("x = F.pixel_unshuffle(F.interpolate(x, scale_factor=2.0), 2)")
        b.do(f"x = {_conv(b, wide * 4, out)}(x)")
    elif kind == "unfold":
        b.do(f"x = F.unfold(x, 3, padding=1).reshape(x.shape[0], {b.size(wide * 9)}, 4, 4)")
        b.do(f"x = {_conv(b, wide * 9, out)}(x)")
    elif kind == "patches":
        b.do("x = torch.cat([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=1)")
        b.do(f"x = F.interpolate({_conv(b, wide * 4, out)}(x), size=(4, 4))")
    else:
        b.do("x = F.pixel_shuffle(x, 2)")
        if kind == "both":
            b.do(f"x = F.pixel_unshuffle({_conv(b, wide // 4, wide // 4)}(x), 2)")
            b.do(f"x = {_conv(b, wide, out)}(x)")
        else:
            b.do(f"x = {_conv(b, wide // 4, out)}(F.max_pool2d(x, 2))")


def padded(b: Block, c: int, out: int) -> None:
    """A shortcut that pads channels, around a wider branch."""
    before, after = b.pick((1, 1), (0, 2), (2, 0))
    wide = c + before + after
    value = b.pick("", "", ", value=1.0")
    b.do(f"x = F.pad(x, (0, 0, 0, 0, {before}, {after}){value}) + {_conv(b, c, wide)}(x)")
    b.do(f"x = {_conv(b, wide, out)}(x)")


def spatial(b: Block, c: int, out: int) -> None:
    """Large kernels, pooling, and gates over space."""
    kind = b.pick("gate", "pool", "strip", "spatial mean")
    if kind == "gate":
        own = b.module("nn.Conv2d(2, 1, 3, padding=1)")
        b.do("gate = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)")
        b.do(f"x = x * torch.sigmoid({own}(gate))")
    elif kind == "pool":
        b.do("x = F.max_pool2d(x, 3, 1, 1) - F.avg_pool2d(x, 3, 1, 1)")
    elif kind == "strip":
        b.do("x = x + x.mean(2, keepdim=True) * x.amax(3, keepdim=True)")
    else:
        b.do("x = x / (x.pow(2).mean((2, 3), keepdim=True) + 1.0).sqrt()")
    b.do(f"x = {_conv(b, c, out)}(x)")


ANY_WIDTH = (
    plain, plain, inverted, parts, shuffled, dense, split_attention, pixels, padded, spatial,
)  # fmt: skip


def norm(b: Block, c: int, out: int) -> None:
    """Norms and scales; widths stay."""
    kind = b.pick("group", "layer", "scale", "batch", "prelu", "global response")
    if kind == "layer":
        own = b.module(f"nn.LayerNorm({c})")
        b.do(f"x = {own}(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)")
    elif kind == "scale":
        b.do(f"x = x * {b.parameter(c, 1, 1)} + {b.parameter(1, c, 1, 1)}")
    elif kind == "global response":
        b.do("size = x.norm(p=2, dim=(2, 3), keepdim=True)")
        b.do(f"x = x * (size / (size.mean(1, keepdim=True) + 1e-6)) * {b.parameter(c, 1, 1)} + x")
    else:
        groups = b.pick(*(g for g in (1, 2, c) if c % g == 0))
        own = {
            "group": f"nn.GroupNorm({groups}, {c})",
            "batch": f"nn.BatchNorm2d({c})",
            "prelu": f"nn.PReLU({c})",
        }[kind]
        b.do(f"x = {b.module(own)}(x)")


SAME_WIDTH = (norm,)
