"""Blocks on tokens, ``x`` of shape [B, T, C]."""

from __future__ import annotations

from tests.properties.written._mixtures import routed
from tests.properties.written._source import Block

ACTS = ("F.relu", "F.gelu", "F.silu", "torch.sigmoid", "torch.tanh", "torch.cos")


def mlp(b: Block, c: int, out: int) -> None:
    """Two linear layers, now and then with a norm, a scale or a dropout between them."""
    hidden = b.pick(2, 3, 4, 6, 8)
    b.do(f"x = {b.pick(*ACTS)}({b.linear(c, hidden)}(x))")
    extra = b.pick("", "", "norm", "scale", "dropout", "prelu", "deeper")
    if extra == "norm":
        kind = b.pick("LayerNorm", "RMSNorm")
        b.do(f"x = {b.module(f'nn.{kind}({hidden})')}(x)")
    elif extra == "scale":
        b.do(f"x = x * {b.parameter(hidden)} + {b.parameter(1, 1, hidden)}")
    elif extra == "dropout":
        b.do(f"x = F.dropout(x, 0.5, self.training) + x.clamp(-1.0, {b.size(2)})")
    elif extra == "prelu":
        own = b.module(f"nn.PReLU({hidden})")
        b.do(f"x = {own}(x.transpose(1, 2)).transpose(1, 2)")
    elif extra == "deeper":
        b.do(f"x = {b.linear(hidden, hidden)}(x) + x")
    b.do(f"x = {b.linear(hidden, out)}(x)")


def gated(b: Block, c: int, out: int) -> None:
    """GLU and SwiGLU: fused, dealt out in turns, or from two layers."""
    hidden = b.pick(2, 3, 4, 6)
    act = b.pick(*ACTS)
    how = b.pick("fused", "fused", "glu", "turns", "two", "three")
    if how == "two":
        b.do(f"x = {act}({b.linear(c, hidden)}(x)) * {b.linear(c, hidden)}(x)")
    elif how == "glu":
        b.do(f"x = F.glu({b.linear(c, 2 * hidden)}(x), dim=-1)")
    elif how == "turns":
        b.do(f"x = {b.linear(c, 2 * hidden)}(x)")
        b.do(f"x = {act}(x[..., ::2]) * x[..., 1::2]")
    else:
        parts = 3 if how == "three" else 2
        b.do(f"x = {b.linear(c, parts * hidden)}(x)")
        names = b.cut("x", [hidden] * parts)
        rest = f" + {names[2]}" if parts == 3 else ""
        b.do(f"x = {act}({names[0]}) * {names[1]}{rest}")
    b.do(f"x = {b.linear(hidden, out)}(x)")


def parts(b: Block, c: int, out: int) -> None:
    """Cut into parts, equal or not, treat each its way, and join in another order."""
    sizes = [b.pick(1, 2, 3, 4) for _ in range(b.pick(2, 2, 3))]
    if b.chance(0.5):
        sizes = [sizes[0]] * len(sizes)
    b.do(f"x = {b.linear(c, sum(sizes))}(x)")
    names = b.cut("x", sizes)
    for name, size in zip(names, sizes, strict=True):
        kind = b.pick("none", "act", "linear", "cut")
        if kind == "act":
            b.do(f"{name} = {b.pick(*ACTS)}({name})")
        elif kind == "linear":
            b.do(f"{name} = {b.linear(size, size)}({name})")
        elif kind == "cut" and size % 2 == 0:
            one, two = b.cut(name, [size // 2, size // 2])
            b.do(f"{name} = torch.cat([{two}, torch.tanh({one})], dim=-1)")
    order = list(names)
    b.rng.shuffle(order)
    b.do(f"x = torch.cat([{', '.join(order)}], dim=-1)")
    b.do(f"x = {b.linear(sum(sizes), out)}(x)")


def shuffled(b: Block, c: int, out: int) -> None:
    """Reshape channels into groups, permute, and reshape back; treat groups apart or as one."""
    groups, inner = b.pick((2, 2), (2, 3), (3, 2), (2, 4), (4, 2))
    b.do(f"x = {b.linear(c, groups * inner)}(x)")
    lead = "x.shape[0], x.shape[1]"
    b.do(f"x = x.reshape({lead}, {b.shape([groups, inner], b.pick(0, 1))})")
    kind = b.pick("shuffle", "shuffle", "batched", "mean", "outer", "softmax")
    if kind == "batched":
        b.do(f"x = torch.einsum('btgi,gio->btgo', x, {b.parameter(groups, inner, inner)})")
    elif kind == "mean":
        b.do("x = x - x.mean(dim=2, keepdim=True)")
    elif kind == "softmax":
        b.do("x = x.softmax(dim=3) * x")
    elif kind == "outer":
        b.do(f"x = x * {b.parameter(groups, 1)} + {b.parameter(inner)}")
    if kind == "shuffle" or b.chance(0.4):
        b.do("x = x.transpose(2, 3)")
    if b.chance(b.book.loose):
        b.do("x = x.flatten(2)")
    else:
        b.do(f"x = x.reshape({lead}, {b.size(groups * inner)})")
    b.do(f"x = {b.linear(groups * inner, out)}(x)")


def token_mixing(b: Block, c: int, out: int) -> None:
    """Treat positions by a linear layer or a convolution along the sequence."""
    b.do("x = x.transpose(1, 2)")
    kind = b.pick("depthwise", "conv", "padded", "grouped")
    if kind == "depthwise":
        own = b.module(f"nn.Conv1d({c}, {c}, 3, padding=1, groups={c})")
    elif kind == "grouped" and c % 2 == 0:
        own = b.module(f"nn.Conv1d({c}, {c}, 3, padding=1, groups=2)")
    else:
        own = b.module(f"nn.Conv1d({c}, {c}, 3, padding={2 if kind == 'padded' else 1})")
    b.do(f"x = {own}(x)" + ("[..., :-2]" if kind == "padded" else ""))
    if b.chance(0.3):
        b.do(f"x = {b.module(f'nn.BatchNorm1d({c})')}(x)")
    b.do("x = x.transpose(1, 2)")
    b.do(f"x = {b.linear(c, out)}(x)")


def outer_product(b: Block, c: int, out: int) -> None:
    """Multiply every feature of one kind with every feature of another."""
    m, n = b.pick((2, 2), (2, 3), (3, 2))
    b.do(f"one, two = {b.linear(c, m)}(x), torch.tanh({b.linear(c, n)}(x))")
    b.do("x = one.unsqueeze(-1) * two.unsqueeze(-2)")
    if b.chance(0.3):
        b.do("x = x.transpose(-2, -1)")
    b.do("x = x.flatten(2)" if b.chance(0.7) else f"x = x.reshape(*x.shape[:2], {b.size(m * n)})")
    b.do(f"x = {b.linear(m * n, out)}(x)")


def experts(b: Block, c: int, out: int) -> None:
    """A soft mixture: several layers weighted by a softmax."""
    hidden, number = b.pick(2, 3, 4), b.pick(2, 3)
    b.do(f"gate = {b.linear(c, number)}(x).softmax(-1)")
    names = ", ".join(f"{b.linear(c, hidden)}(x)" for _ in range(number))
    b.do(f"x = torch.stack([{names}], dim=-1)")
    b.do("x = (x * gate.unsqueeze(-2)).sum(-1)")
    b.do(f"x = {b.linear(hidden, out)}({b.pick(*ACTS)}(x))")


def tied(b: Block, c: int, out: int) -> None:
    """One weight in two places, or one module called twice."""
    hidden = b.pick(2, 4, 6)
    kind = b.pick("transposed", "twice", "same")
    own = b.linear(c, hidden)
    if kind == "transposed":
        b.do(f"x = F.linear({b.pick(*ACTS)}({own}(x)), {own}.weight.t())")
        b.do(f"x = {b.linear(c, out)}(x)")
    elif kind == "twice":
        b.do(f"x = {own}(x)")
        again = b.linear(hidden, hidden)
        b.do(f"x = {again}(torch.relu({again}(x)))")
        b.do(f"x = {b.linear(hidden, out)}(x)")
    else:
        other = b.module(f"nn.Linear({c}, {hidden})")
        b.made.append(f"{other}.weight = {own}.weight")
        b.do(f"x = torch.cat([torch.relu({own}(x)), {other}(x)], dim=-1)")
        b.do(f"x = {b.linear(2 * hidden, out)}(x)")


def statistics(b: Block, c: int, out: int) -> None:
    """Statistics over channels that a removal would change, and ones that it would not."""
    hidden = b.pick(3, 4, 6)
    b.do(f"x = {b.linear(c, hidden)}(x)")
    line = b.pick(
        "x = x - x.mean(-1, keepdim=True)",
        "x = F.normalize(x, dim=-1)",
        "x = x * x.sum(-1, keepdim=True)",
        "x = x / (x.abs().amax(-1, keepdim=True) + 1.0)",
        "x = x.softmax(-1)",
        "x = x.cumsum(-1)",
        "x = x.cumsum(1)",
        "x = torch.cat([x, x.mean(1, keepdim=True)], dim=1)[:, : x.shape[1]]",
        "x = x * x.mean(1, keepdim=True).sigmoid()",
        "x = x / x.shape[-1]",
        "x = x * (x.size(-1) ** -0.5)",
        "x = x.roll(1, 1) + x.flip(1)",
        "x = x.roll(1, -1) + x",
        "x = x.sort(1).values",
        "x = x[..., [2, 0, 1]].sum(-1, keepdim=True) + x",
        "x = x.index_select(-1, torch.arange(x.shape[-1] - 1, -1, -1))",
        "x = F.pad(x, (1, -1))",
        "x = torch.where(x > 0, x, x.new_zeros(x.shape))",
        "x = x + torch.arange(x.shape[-1]).to(x)",
        "x = torch.maximum(x, x.mean((0, 1)))",
        "x = x.repeat(1, 1, 2)[..., 1 : x.shape[-1] + 1]",
        "x = x.repeat_interleave(2, dim=-1)[..., : x.shape[-1]]",
        "x = x @ torch.eye(x.shape[-1]).to(x)",
        "x = x + x.transpose(0, 1).reshape(x.shape)",
        "x = F.layer_norm(x, x.shape[-1:])",
        "x = x + torch.zeros_like(x).index_fill(2, torch.tensor([1]), 1.0)",
        "x = torch.stack([x, -x], dim=-1).flatten(-2)[..., ::2]",
        "x = torch.stack([x, -x], dim=2).flatten(2)[..., : x.shape[-1]]",
    )
    b.do(line)
    b.do(f"x = {b.linear(hidden, out)}(x)")


ANY_WIDTH = (
    mlp, gated, parts, shuffled, token_mixing, outer_product, experts, routed, tied,
    statistics,
)  # fmt: skip


def norm(b: Block, c: int, out: int) -> None:
    """A norm over channels, as a module, as a function or by hand; widths stay."""
    kind = b.pick("LayerNorm", "RMSNorm", "group", "batch", "instance")
    if kind in ("LayerNorm", "RMSNorm"):
        b.do(f"x = {b.module(f'nn.{kind}({c})')}(x)")
        return
    groups = b.pick(*(g for g in (1, 2, c) if c % g == 0))
    own = {
        "group": f"nn.GroupNorm({groups}, {c})",
        "batch": f"nn.BatchNorm1d({c})",
        "instance": f"nn.InstanceNorm1d({c}, affine=True)",
    }[kind]
    b.do(f"x = {b.module(own)}(x.transpose(1, 2)).transpose(1, 2)")


def position(b: Block, c: int, out: int) -> None:
    """Learned positions, a class token that comes and goes, or a scale."""
    kind = b.pick("scale", "scale", "token", "shift")
    if kind == "scale":
        b.do(f"x = x * {b.parameter(c)}")
    elif kind == "shift":
        b.do(f"x = x + {b.parameter(1, 1, c)}")
    else:
        token = b.parameter(1, 1, c)
        b.do(f"x = torch.cat([{token}.expand(x.shape[0], -1, -1), x], dim=1)")
        b.do("x = x[:, 1:] + x[:, :1]")


SAME_WIDTH = (norm, position)
