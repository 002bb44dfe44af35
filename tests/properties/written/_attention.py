"""Attention in the forms that published models write it.

Letters: B batch, T tokens, H query heads, G key and value heads, D depth of a head.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.properties.written._source import Block


@dataclass(frozen=True)
class Heads:
    """Layout of one attention: G divides H."""

    query: int
    shared: int
    depth: int

    @property
    def times(self) -> int:
        return self.query // self.shared


def attention(b: Block, c: int, out: int) -> None:
    """Self-attention from projections to output."""
    heads = Heads(*b.pick((1, 1), (2, 2), (3, 3), (4, 4), (4, 2), (2, 1), (6, 3)), b.pick(2, 4))
    _attend(b, c, out, heads, _self_projections(b, c, heads))


def cross_attention(b: Block, c: int, out: int) -> None:
    """Queries from one place, keys and values from another."""
    heads = Heads(*b.pick((2, 2), (3, 3), (4, 2)), b.pick(2, 4))
    kind = b.pick("tokens", "pooled", "latent")
    if kind == "latent":
        b.do(f"context = {b.parameter(1, 5, c)}.expand(x.shape[0], -1, -1)")
    elif kind == "pooled":
        b.do("context = F.avg_pool1d(x.transpose(1, 2), 2).transpose(1, 2)")
    else:
        b.do(f"context = torch.tanh({b.linear(c, c)}(x))")
    if b.chance(0.3):
        b.do("x, context = context, x" if kind == "tokens" else "context = context * 2.0")
    q = _split_heads(b, f"{b.linear(c, heads.query * heads.depth)}(x)", heads.query, heads.depth)
    keys = b.linear(c, heads.shared * heads.depth)
    values = b.linear(c, heads.shared * heads.depth)
    k = _split_heads(b, f"{keys}(context)", heads.shared, heads.depth)
    v = _split_heads(b, f"{values}(context)", heads.shared, heads.depth)
    _attend(b, c, out, heads, (q, k, v), square=False)


def ready_made(b: Block, c: int, out: int) -> None:
    """PyTorch's own module."""
    heads = b.pick(*(h for h in (1, 2, 4) if c % h == 0))
    own = b.module(f"nn.MultiheadAttention({c}, {heads}, batch_first=True)")
    b.do(f"x = {own}(x, x, x, need_weights={b.chance(0.5)})[0]")
    if c != out or b.chance(0.5):
        b.do(f"x = {b.linear(c, out)}(x)")


def channel_attention(b: Block, c: int, out: int) -> None:
    """Cross-covariance attention: depth attends to depth, tokens are summed."""
    heads = Heads(*b.pick((2, 2), (3, 3)), b.pick(2, 3))
    q, k, v = _self_projections(b, c, heads)
    b.do(f"{q}, {k}, {v} = (t.transpose(-2, -1) for t in ({q}, {k}, {v}))")
    if b.chance(0.5):
        b.do(f"{q} = F.normalize({q}, dim=-1)")
    b.do(f"w = ({q} @ {k}.transpose(-2, -1)) * {b.parameter(heads.query, 1, 1)}")
    b.do(f"x = (w.softmax(dim=-1) @ {v}).permute(0, 3, 1, 2)")
    _merge(b, heads, out)


def linear_attention(b: Block, c: int, out: int) -> None:
    """Keys and values are multiplied first; there is no softmax."""
    heads = Heads(*b.pick((2, 2), (3, 3)), b.pick(2, 3))
    q, k, v = _self_projections(b, c, heads)
    act = b.pick("F.relu", "torch.sigmoid", "F.elu")
    b.do(f"{q}, {k} = {act}({q}), {act}({k})")
    if b.chance(0.5):
        b.do(f"x = {q} @ ({k}.transpose(-2, -1) @ {v})")
    else:
        b.do(f"w = torch.einsum('bhtd,bhte->bhde', {k}, {v})")
        b.do(f"x = torch.einsum('bhtd,bhde->bhte', {q}, w)")
    if b.chance(0.3):
        b.do(f"x = x / ({q}.sum(-1, keepdim=True) ** 2 + 1.0)")
    b.do("x = x.transpose(1, 2)")
    _merge(b, heads, out)


def _split_heads(b: Block, value: str, heads: int, depth: int) -> str:
    """Turn [B, T, H D] into [B, H, T, D]."""
    name = b.fresh()
    b.do(f"{name} = {value}")
    how = b.pick("view", "reshape", "unflatten")
    if how == "unflatten":
        b.do(f"{name} = {name}.unflatten(-1, ({b.shape([heads, depth], 0)}))")
    else:
        dims = [(2, f"{name}.shape[0]"), (4, f"{name}.shape[1]"), heads]
        given = ", ".join(b.size(d) if isinstance(d, int) else d[1] for d in dims[:2])
        b.do(f"{name} = {name}.reshape({given}, {b.shape([heads, depth], 0)})")
    b.do(f"{name} = {name}.{b.pick('transpose(1, 2)', 'permute(0, 2, 1, 3)')}")
    return name


def _self_projections(b: Block, c: int, heads: Heads) -> tuple[str, str, str]:
    """Make queries, keys and values of shape [B, heads, T, D]."""
    h, g, d = heads.query, heads.shared, heads.depth
    ways = ["separate", "separate", "split", "groups"]
    if h == g:
        ways += ["3hd", "h3d", "h3d chunk", "chunk", "einsum"]
    how = b.pick(*ways)
    if how == "separate":
        q, k, v = (_split_heads(b, f"{b.linear(c, n * d)}(x)", n, d) for n in (h, g, g))
        return q, k, v
    if how == "einsum":
        names = [b.fresh() for _ in range(3)]
        for name in names:
            b.do(f"{name} = torch.einsum('btc,chd->bhtd', x, {b.parameter(c, h, d)})")
        return names[0], names[1], names[2]
    qkv = b.fresh()
    if b.chance(0.2):
        b.do(f"{qkv} = F.linear(x, {b.parameter((h + 2 * g) * d, c)})")
    else:
        b.do(f"{qkv} = {b.linear(c, (h + 2 * g) * d)}(x)")
    if how in ("split", "chunk"):
        parts = b.cut(qkv, [h * d, g * d, g * d])
        q, k, v = (_split_heads(b, p, n, d) for p, n in zip(parts, (h, g, g), strict=True))
        return q, k, v
    return _fused(b, qkv, how, heads)


def _fused(b: Block, qkv: str, how: str, heads: Heads) -> tuple[str, str, str]:
    """Read one projection that holds queries, keys and values in some order."""
    h, g, d = heads.query, heads.shared, heads.depth
    q, k, v = (b.fresh() for _ in range(3))
    lead = f"{qkv}.shape[0], {qkv}.shape[1]"
    if how == "3hd":
        b.do(f"{qkv} = {qkv}.reshape({lead}, {b.shape([3, h, d], 1)}).permute(2, 0, 3, 1, 4)")
        ways = [f"{qkv}[0], {qkv}[1], {qkv}[2]", f"{qkv}.unbind(0)", f"{qkv}"]
        b.do(f"{q}, {k}, {v} = {b.pick(*ways)}")
    elif how == "h3d":
        b.do(f"{qkv} = {qkv}.reshape({lead}, {b.shape([h, 3, d], 0)}).transpose(1, 2)")
        ways = [f"{qkv}.unbind(3)", f"{qkv}.permute(3, 0, 1, 2, 4)"]
        b.do(f"{q}, {k}, {v} = {b.pick(*ways)}")
    elif how == "h3d chunk":
        b.do(f"{qkv} = {qkv}.reshape({lead}, {b.shape([h, 3 * d], 0)}).transpose(1, 2)")
        names = b.cut(qkv, [d, d, d])
        q, k, v = names
    else:
        n = heads.times
        b.do(f"{qkv} = {qkv}.reshape({lead}, {b.shape([g, n + 2, d], 0)})")
        b.do(f"{q} = {qkv}[:, :, :, :{b.size(n)}].flatten(2, 3).transpose(1, 2)")
        b.do(f"{k} = {qkv}[:, :, :, {b.size(n)}].transpose(1, 2)")
        b.do(f"{v} = {qkv}[:, :, :, -1].transpose(1, 2)")
    return q, k, v


def _attend(
    b: Block, c: int, out: int, heads: Heads, qkv: tuple[str, str, str], *, square: bool = True
) -> None:
    """Rotate, repeat shared heads, compare, mix values, and project."""
    q, k, v = qkv
    if b.chance(0.2):
        norm = b.pick("RMSNorm", "LayerNorm")
        b.do(f"{q} = {b.module(f'nn.{norm}({heads.depth})')}({q})")
        b.do(f"{k} = {b.module(f'nn.{norm}({heads.depth})')}({k})")
    if square and b.chance(0.3):
        _rotate(b, q, k, heads.depth)
    fused_groups = _repeat(b, heads, q, k, v)
    if fused_groups is not None:
        b.do(f"x = {fused_groups}")
    elif b.chance(0.4):
        _kernel(b, heads, q, k, v)
    else:
        _by_hand(b, heads, q, k, v, square=square)
    if b.chance(0.15):
        b.do(f"x = x * torch.sigmoid({b.parameter(heads.query, 1, 1)})")
    b.do(f"x = x.{b.pick('transpose(1, 2)', 'permute(0, 2, 1, 3)')}")
    _merge(b, heads, out)


def _rotate(b: Block, q: str, k: str, d: int) -> None:
    """Rotary position embedding, of halves, of neighbours, or as complex numbers."""
    angle = "torch.arange(64.0)[:, None] * torch.arange({n}.0) / {d}"
    how = b.pick("halves", "halves", "neighbours", "complex")
    width = d // 2 if how in ("neighbours", "complex") else d
    cos = b.buffer(f"torch.cos({angle.format(n=width, d=d)})")
    sin = b.buffer(f"torch.sin({angle.format(n=width, d=d)})")
    for name in (q, k):
        b.do(f"cos, sin = {cos}[: {name}.shape[2]], {sin}[: {name}.shape[2]]")
        if how == "halves":
            one, two = b.cut(name, [d // 2, d // 2])
            b.do(f"{name} = {name} * cos + torch.cat([-{two}, {one}], dim=-1) * sin")
        elif how == "neighbours":
            b.do(f"one, two = {name}[..., ::2], {name}[..., 1::2]")
            b.do(f"{name} = torch.stack([one * cos - two * sin, one * sin + two * cos], dim=-1)")
            b.do(f"{name} = {name}.flatten(-2)")
        else:
            b.do(f"{name} = torch.view_as_complex({name}.unflatten(-1, (-1, 2)).contiguous())")
            b.do(f"{name} = torch.view_as_real({name} * torch.complex(cos, sin)).flatten(-2)")


def _repeat(b: Block, heads: Heads, q: str, k: str, v: str) -> str | None:
    """Share keys and values among queries; returns the result where that is part of the product."""
    g, n, d = heads.shared, heads.times, heads.depth
    if n == 1:
        return None
    how = b.pick("interleave", "expand", "tile", "kernel", "groups")
    scale = f"{d} ** -0.5"
    if how == "kernel":
        return f"F.scaled_dot_product_attention({q}, {k}, {v}, scale={scale}, enable_gqa=True)"
    if how == "groups":
        b.do(f"{q} = {q}.unflatten(1, ({b.shape([g, n], 0)}))")
        b.do(f"w = ({q} * {scale}) @ {k}.unsqueeze(2).transpose(-2, -1)")
        return f"(w.softmax(-1) @ {v}.unsqueeze(2)).flatten(1, 2)"
    for name in (k, v):
        if how == "interleave":
            b.do(f"{name} = {name}.repeat_interleave({b.size(n)}, dim=1)")
        elif how == "tile":
            b.do(f"{name} = {name}.repeat(1, {b.size(n)}, 1, 1)")
        else:
            b.do(f"{name} = {name}[:, :, None].expand(-1, -1, {b.size(n)}, -1, -1)")
            merged = f"reshape({name}.shape[0], -1, *{name}.shape[3:])"
            b.do(f"{name} = {name}.{b.pick('flatten(1, 2)', merged)}")
    return None


def _kernel(b: Block, heads: Heads, q: str, k: str, v: str) -> None:
    """PyTorch's fused attention, with the scale given."""
    scale = b.pick(f"{heads.depth} ** -0.5", "0.5", f"{b.size(heads.depth)} ** -0.5")
    mask = ""
    if b.chance(0.3):
        mask = (
            f", attn_mask={b.parameter(heads.query, 1, 1)}.expand(-1, {q}.shape[2], {k}.shape[2])"
        )
    b.do(f"x = F.scaled_dot_product_attention({q}, {k}, {v}{mask}, scale={scale})")


def _by_hand(b: Block, heads: Heads, q: str, k: str, v: str, *, square: bool) -> None:
    """Matrix products with a softmax between them."""
    if b.chance(0.3):
        b.do(f"w = torch.einsum('bhid,bhjd->bhij', {q}, {k})")
    else:
        b.do(f"w = {q} @ {k}.transpose(-2, -1)")
    scale = b.pick(
        f"{heads.depth} ** -0.5", f"{b.size(heads.depth)} ** -0.5", f"{q}.size(-1) ** -0.5"
    )
    b.do(b.pick(f"w = w * {scale}", f"w = w / (1.0 / ({scale}))"))
    if b.chance(0.25):
        b.do(f"w = w + {b.parameter(heads.query, 1, 1)} * torch.ones(1, w.shape[-1]).to(w)")
    if square and b.chance(0.25):
        b.do("w = w.masked_fill(torch.ones(w.shape[-2:]).triu(1).bool(), -1e4)")
    b.do(f"w = w.{b.pick('softmax(dim=-1)', 'softmax(-1)', 'sigmoid()')}")
    if b.chance(0.15):
        mix = b.parameter(heads.query, heads.query)
        b.do(f"w = torch.einsum('bhij,hg->bgij', w, {mix})")
    if b.chance(0.3):
        b.do(f"x = torch.einsum('bhij,bhjd->bhid', w, {v})")
    else:
        b.do(f"x = w @ {v}")


def _merge(b: Block, heads: Heads, out: int) -> None:
    """Turn [B, T, H, D] into [B, T, out]."""
    h, d = heads.query, heads.depth
    how = b.pick("flatten", "reshape", "reshape", "einsum", "sum", "cat")
    if how == "einsum":
        b.do(f"x = torch.einsum('bthd,hdo->bto', x, {b.parameter(h, d, out)})")
        return
    if how == "sum":
        b.do("x = x.sum(2)" if b.chance(0.5) else "x = x.mean(2)")
        b.do(f"x = {b.linear(d, out)}(x)")
        return
    if how == "flatten":
        b.do("x = x.flatten(2)")
    elif how == "cat":
        b.do("x = torch.cat(x.unbind(2), dim=-1)")
    else:
        width = b.size((h * d, "x.shape[2] * x.shape[3]"))
        if b.chance(b.book.loose):
            width = "-1"
        b.do(f"x = x.reshape(x.shape[0], x.shape[1], {width})")
    b.do(f"x = {b.linear(h * d, out)}(x)")
