"""Puts blocks together: branches, windows, stems and heads."""

from __future__ import annotations

import linecache
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.properties.written import _attention, _images, _tokens
from tests.properties.written._source import Block, Book

Write = Callable[[Block, int, int], None]

_ATTENTION = (
    _attention.attention, _attention.attention, _attention.attention, _attention.cross_attention,
    _attention.ready_made, _attention.channel_attention, _attention.linear_attention,
)  # fmt: skip
_ANY = {"tokens": (*_tokens.ANY_WIDTH, *_ATTENTION), "image": _images.ANY_WIDTH}
_SAME = {"tokens": _tokens.SAME_WIDTH, "image": _images.SAME_WIDTH}
_SHAPES = {"image": (2, 3, 4, 4), "words": (2, 8), "signal": (2, 8, 5)}
_NUM_WORDS = 11
_NUM_CLASSES = 3


@dataclass(frozen=True)
class Architecture:
    """Source of one network, and what it takes.

    Attributes:
        seed: What it was drawn from.
        source: Python source that defines ``Network``; torch, nn and F are in scope.
        kind: ``image``, ``words`` or ``signal``.
        num_blocks: Number of blocks between stem and head.
    """

    seed: int
    source: str
    kind: str
    num_blocks: int

    @cached_property
    def _class(self) -> Any:
        name = f"<network {self.seed}>"
        linecache.cache[name] = (len(self.source), None, self.source.splitlines(True), name)
        scope: dict[str, Any] = {"torch": torch, "nn": nn, "F": F, "__name__": name}
        exec(compile(self.source, name, "exec"), scope)
        return scope["Network"]

    def build(self) -> nn.Module:
        """Make the network; its weights follow the seed."""
        torch.manual_seed(self.seed)
        return self._class()

    def example(self) -> Tensor:
        """Make an input."""
        torch.manual_seed(self.seed)
        if self.kind == "words":
            return torch.randint(_NUM_WORDS, _SHAPES[self.kind])
        return torch.randn(_SHAPES[self.kind])


def architecture(seed: int, without: frozenset[int] = frozenset()) -> Architecture:
    """Draw a network.

    Args:
        seed: Equal seeds give equal networks.
        without: Blocks to leave out, to find the smallest network that fails.

    Returns:
        The network's source.
    """
    rng = random.Random(seed)
    book = Book(loose=rng.choice([1.0, 0.9, 0.9, 0.5]))
    kind = rng.choice(["image", "image", "words", "signal"])
    main = book.block(rng)
    main.name = "Network"
    c = rng.choice([4, 6, 8])
    layout = _stem(main, kind, c)
    switch = rng.choice([0, 0, 1, 2]) if kind == "image" else -1
    num_blocks = rng.choice([1, 2, 2, 3])
    widths = [rng.choice([4, 6, 8]) for _ in range(num_blocks)]
    for i, width in enumerate(widths):
        main.rng = random.Random(f"{seed}/{i}")
        if i == switch:
            layout = _to_tokens(main)
        if i in without:
            continue
        out = width if main.chance(0.5) else c
        main.do(f"x = {main.child(_composed(layout, main.rng), c, out)}(x)")
        c = out
    main.rng = random.Random(f"{seed}/head")
    _head(main, kind, layout, c)
    source = "\n\n\n".join([*book.classes, main.text()]) + "\n"
    return Architecture(seed, source, kind, num_blocks)


def _stem(b: Block, kind: str, c: int) -> str:
    if kind == "image":
        b.do(f"x = {b.module(f'nn.Conv2d(3, {c}, 3, padding=1)')}(x)")
        if b.chance(0.5):
            b.do(f"x = F.relu({b.module(f'nn.BatchNorm2d({c})')}(x))")
        return "image"
    if kind == "words":
        b.made.append(f"self.words = nn.Embedding({_NUM_WORDS}, {c})")
        b.do("x = self.words(x)")
    else:
        b.do(f"x = {b.linear(5, c)}(x)")
    if b.chance(0.5):
        b.do(f"x = x + {b.parameter(1, 8, c)}")
    return "tokens"


def _to_tokens(b: Block) -> str:
    b.do(b.pick("x = x.flatten(2).transpose(1, 2)", "x = x.permute(0, 2, 3, 1).flatten(1, 2)"))
    return "tokens"


def _head(b: Block, kind: str, layout: str, c: int) -> None:
    if layout == "image":
        how = b.pick("pool", "flatten", "conv")
        if how == "conv":
            b.do(f"x = {b.module(f'nn.Conv2d({c}, {_NUM_CLASSES}, 1)')}(x).mean((2, 3))")
        elif how == "pool":
            b.do(f"x = {b.linear(c, _NUM_CLASSES)}(F.adaptive_avg_pool2d(x, 1).flatten(1))")
        else:
            b.do(f"x = {b.linear(16 * c, _NUM_CLASSES)}(x.flatten(1))")
        return
    how = b.pick("mean", "first", "all", "tied")
    if b.chance(0.3):
        b.do(f"x = {b.module(f'nn.LayerNorm({c})')}(x)")
    if how == "tied" and kind == "words" and f"Embedding({_NUM_WORDS}, {c})" in b.text():
        b.do("x = F.linear(x, self.words.weight)")
    elif how == "mean":
        b.do(f"x = {b.linear(c, _NUM_CLASSES)}(x.mean(1))")
    elif how == "first":
        b.do(f"x = {b.linear(c, _NUM_CLASSES)}(x[:, 0])")
    else:
        b.do(f"x = {b.linear(c, _NUM_CLASSES)}(x)")


def _composed(layout: str, rng: random.Random, depth: int = 0) -> Write:
    """Draw a block, alone or inside others."""
    simple = rng.choice(_ANY[layout])
    if depth > 1:
        return simple
    wraps = [_residual, _residual, _residual, _joined, _summed, _twice, _chain]
    if layout == "tokens":
        wraps.append(_windowed)
    wrap = rng.choice([None, *wraps])
    return simple if wrap is None else wrap(layout, depth)


def _residual(layout: str, depth: int) -> Write:
    def write(b: Block, c: int, out: int) -> None:
        inner = b.child(_composed(layout, b.rng, depth + 1), c, c)
        value = "x"
        if b.chance(0.3):
            value = f"{b.child(b.pick(*_SAME[layout]), c, c)}(x)"
        term = f"{inner}({value})"
        if b.chance(0.3):
            shape = (c,) if layout == "tokens" else (c, 1, 1)
            term = f"{b.parameter(*shape)} * {term}"
        if b.chance(0.2):
            term = f"F.dropout({term}, 0.1, self.training)"
        b.do(
            b.pick(
                f"x = x + {term}", f"x = {term} + x", f"x = x - {term}", f"x = F.relu(x + {term})"
            )
        )
        _widen(b, layout, c, out)

    return write


def _widen(b: Block, layout: str, c: int, out: int) -> None:
    if c != out:
        own = b.linear(c, out) if layout == "tokens" else b.module(f"nn.Conv2d({c}, {out}, 1)")
        b.do(f"x = {own}(x)")


def _joined(layout: str, depth: int) -> Write:
    """Branches side by side."""

    def write(b: Block, c: int, out: int) -> None:
        sizes = [b.pick(1, 2, 3, 4) for _ in range(b.pick(2, 3))]
        branches = [f"{b.child(_composed(layout, b.rng, depth + 1), c, size)}(x)" for size in sizes]
        if b.chance(0.4):
            branches.insert(b.pick(0, 1), "x")
            sizes.append(c)
        axis = -1 if layout == "tokens" else 1
        b.do(f"x = torch.cat([{', '.join(branches)}], dim={axis})")
        _widen(b, layout, sum(sizes), out)
        if sum(sizes) == out:
            b.do("x = torch.tanh(x)")

    return write


def _summed(layout: str, depth: int) -> Write:
    """Parallel branches."""

    def write(b: Block, c: int, out: int) -> None:
        one = b.child(_composed(layout, b.rng, depth + 1), c, out)
        two = b.child(_composed(layout, b.rng, depth + 1), c, out)
        b.do(f"x = {one}(x) {b.pick('+', '+', '*')} {two}(x)" + (" + x" if c == out else ""))

    return write


def _twice(layout: str, depth: int) -> Write:
    """One module called several times."""

    def write(b: Block, c: int, out: int) -> None:
        inner = b.child(_composed(layout, b.rng, depth + 1), c, c)
        b.do(f"x = {inner}({inner}(x))" if b.chance(0.5) else f"x = x + {inner}(x)")
        b.do(f"x = {inner}(torch.tanh(x)) + x")
        _widen(b, layout, c, out)

    return write


def _chain(layout: str, depth: int) -> Write:
    """A norm or scale, then a block."""

    def write(b: Block, c: int, out: int) -> None:
        b.do(f"x = {b.child(b.pick(*_SAME[layout]), c, c)}(x)")
        b.do(f"x = {b.child(_composed(layout, b.rng, depth + 1), c, out)}(x)")

    return write


def _windowed(layout: str, depth: int) -> Write:
    """Partition the sequence into windows, treat each alone, and merge; windows may be shifted."""

    def write(b: Block, c: int, out: int) -> None:
        shift = b.chance(0.3)
        if shift:
            b.do("x = torch.roll(x, shifts=-1, dims=1)")
        b.do("count, length = x.shape[:2]")
        grid = b.chance(0.4)
        b.do(f"x = x.reshape(count, 2, length // 2, {b.shape([(c, 'x.shape[-1]')], 0)})")
        if grid:
            b.do("x = x.transpose(1, 2)")
        b.do(f"x = x.{b.pick('flatten(0, 1)', 'reshape(-1, x.shape[2], x.shape[3])')}")
        b.do(f"x = {b.child(b.pick(*_ATTENTION), c, out)}(x)")
        last = b.shape([(out, "x.shape[-1]")], 0)
        if grid:
            b.do(f"x = x.reshape(count, length // 2, 2, {last}).transpose(1, 2)")
        else:
            b.do(f"x = x.reshape(count, 2, length // 2, {last})")
        b.do("x = x.flatten(1, 2)")
        if shift:
            b.do("x = torch.roll(x, shifts=1, dims=1)")

    return write
