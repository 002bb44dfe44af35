"""Mixtures of experts on tokens, ``x`` of shape [B, T, C]."""

from __future__ import annotations

from tests.properties.written._source import Block

ACTS = ("F.relu", "F.gelu", "F.silu", "torch.tanh")


def routed(b: Block, c: int, out: int) -> None:
    """A router sends every token to some of several experts, whose weights are stacked."""
    number, hidden = b.pick(3, 4, 5), b.pick(2, 3, 4)
    up, down = b.parameter(number, hidden, c), b.parameter(number, out, hidden)
    bias = b.parameter(number, out) if b.chance(0.4) else ""
    b.do("tokens, x = x.shape[:2], x.flatten(0, 1)")
    _route(b, c, number)
    if b.chance(0.5):
        _gather(b, up, down, bias)
    else:
        _loop(b, out, number, up, down, bias)
    b.do("x = x.unflatten(0, tokens)")


def _route(b: Block, c: int, number: int) -> None:
    """Choose one or two experts a token, and say how much each of them weighs."""
    count = b.pick(1, 2, 2)
    b.do(f"gate = {b.linear(c, number)}(x)")
    how = b.pick("weighed", "chosen", "biased", "masked")
    if how == "weighed":
        b.do(f"weight, chosen = gate.softmax(-1).topk({count}, -1)")
    elif how == "chosen":
        b.do(f"weight, chosen = torch.topk(gate, {count}, dim=-1, sorted={b.chance(0.5)})")
        b.do("weight = weight.softmax(-1)")
    elif how == "biased":
        b.do("gate = gate.sigmoid()")
        bias = b.buffer(f"torch.randn({number})")
        b.do(f"chosen = (gate + {bias}).topk({count}, -1).indices")
        b.do("weight = gate.gather(-1, chosen)")
    else:
        b.do("first = gate.argmax(-1, keepdim=True)")
        b.do("second = gate.scatter(-1, first, float('-inf')).argmax(-1, keepdim=True)")
        b.do("chosen = torch.cat([first, second], dim=-1)")
        b.do("weight = gate.softmax(-1).gather(-1, chosen)")
    if b.chance(0.4):
        b.do("weight = weight / (weight.sum(-1, keepdim=True) + 1.0)")


def _gather(b: Block, up: str, down: str, bias: str) -> None:
    """Gather the weights of the chosen experts for every token."""
    b.do(f"y = {b.pick(*ACTS)}(torch.einsum('tkhc,tc->tkh', {up}[chosen], x))")
    if b.chance(0.5):
        b.do(f"y = torch.einsum('tkoh,tkh->tko', {down}[chosen], y)")
    else:
        b.do(f"y = ({down}[chosen] @ y.unsqueeze(-1)).squeeze(-1)")
    if bias:
        b.do(f"y = y + {bias}[chosen]")
    b.do("x = (y * weight.unsqueeze(-1)).sum(1)")


def _loop(b: Block, out: int, number: int, up: str, down: str, bias: str) -> None:
    """Go through the experts that were hit, and add their rows where they belong."""
    b.do(f"hits = F.one_hot(chosen, {b.size(number)}).permute(2, 1, 0)")
    b.do(f"y = x.new_zeros(x.shape[0], {b.size(out)})")
    b.do("for expert in hits.sum((-1, -2)).greater(0).nonzero():")
    b.do("    expert = expert[0]")
    b.do("    place, token = torch.where(hits[expert])")
    b.do(f"    row = {b.pick(*ACTS)}(F.linear(x[token], {up}[expert]))")
    b.do(f"    row = F.linear(row, {down}[expert]){f' + {bias}[expert]' if bias else ''}")
    b.do("    y = y.index_add(0, token, row * weight[token, place, None])")
    b.do("x = y")
