"""Writes the source of a module line by line, and spells its sizes in the ways people do."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Dim = int | tuple[int, str]
"""A size, or a size with an expression for it that holds in the forward."""


@dataclass
class Book:
    """All classes of one network.

    Attributes:
        loose: Chance that a size which could be left to PyTorch (as -1) is.
        classes: Source of the classes, in the order in which they were finished.
    """

    loose: float
    classes: list[str] = field(default_factory=list)
    count: int = 0

    def block(self, rng: random.Random) -> Block:
        """Begin a class."""
        self.count += 1
        return Block(self, rng, f"Block{self.count}")


@dataclass
class Block:
    """One class: what its constructor makes and what its forward does to ``x``."""

    book: Book
    rng: random.Random
    name: str
    made: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    arguments: str = "x"

    def pick(self, *choices):
        """Choose one of several."""
        return self.rng.choice(choices)

    def chance(self, part: float) -> bool:
        return self.rng.random() < part

    def _new(self, what: str) -> str:
        return f"self.{what}{len(self.made) + 1}"

    def module(self, text: str) -> str:
        """Make a child module; returns how the forward calls it."""
        name = self._new("layer")
        self.made.append(f"{name} = {text}")
        return name

    def linear(self, c: int, out: int) -> str:
        return self.module(f"nn.Linear({c}, {out}, bias={self.chance(0.7)})")

    def parameter(self, *shape: int) -> str:
        name = self._new("weight")
        self.made.append(f"{name} = nn.Parameter(torch.randn({', '.join(map(str, shape))}) * 0.5)")
        return name

    def buffer(self, text: str) -> str:
        name = f"table{len(self.made) + 1}"
        self.made.append(f'self.register_buffer("{name}", {text})')
        return f"self.{name}"

    def child(self, write: Callable[[Block, int, int], None], c: int, out: int) -> str:
        """Write another class and make a child of it."""
        block = self.book.block(self.rng)
        write(block, c, out)
        self.book.classes.append(block.text())
        return self.module(f"{block.name}()")

    def do(self, line: str) -> None:
        """Add a line to the forward."""
        self.done.append(line)

    def size(self, dim: Dim) -> str:
        """Spell a size: literally, as an attribute, or as the forward can work it out."""
        value, computed = dim if isinstance(dim, tuple) else (dim, None)
        how = self.pick("literal", "attribute", *(["computed"] * 2 if computed else []))
        if how == "computed":
            return str(computed)
        if how == "literal":
            return str(value)
        known = [line.partition(" = ")[0] for line in self.made if _keeps(line, value)]
        if known and self.chance(0.6):
            return self.pick(*known)
        name = self._new("size")
        self.made.append(f"{name} = {value}")
        return name

    def shape(self, dims: Sequence[Dim], loose: int | None = None) -> str:
        """Spell a shape; the loose axis is usually left to PyTorch.

        Args:
            dims: Sizes.
            loose: Axis that a careful author would write as -1.

        Returns:
            Sizes with commas between them.
        """
        left = loose if loose is not None and self.chance(self.book.loose) else None
        if left is None and self.chance(0.2):
            left = self.rng.randrange(len(dims))
        return ", ".join("-1" if i == left else self.size(dim) for i, dim in enumerate(dims))

    def cut(self, value: str, sizes: Sequence[int], axis: int = -1) -> list[str]:
        """Cut a value into parts along an axis, one way or another; returns names of the parts."""
        names = [self.fresh() for _ in sizes]
        equal = len(set(sizes)) == 1
        how = self.pick("split", "slices", *(["chunk", "chunk", "view", "each"] if equal else []))
        ndim_free = axis == -1
        if how == "chunk":
            self.do(f"{', '.join(names)} = {value}.chunk({len(sizes)}, dim={axis})")
        elif how == "each":
            self.do(f"{', '.join(names)} = {value}.split({self.size(sizes[0])}, dim={axis})")
        elif how == "split" or not ndim_free:
            given = ", ".join(self.size(size) for size in sizes)
            self.do(f"{', '.join(names)} = {value}.split([{given}], dim={axis})")
        elif how == "view":
            self.do(
                f"{names[0]} = {value}.unflatten(-1, ({self.shape([len(sizes), sizes[0]], 1)}))"
            )
            self.do(f"{', '.join(names)} = {names[0]}.unbind(-2)")
        else:
            start = 0
            for name, size in zip(names, sizes, strict=True):
                stop = start + size
                self.do(f"{name} = {value}[..., {self.size(start)}:{self.size(stop)}]")
                start = stop
        return names

    def fresh(self) -> str:
        """Return a name for a value that no other value has."""
        self.book.count += 1
        return f"v{self.book.count}"

    def text(self) -> str:
        """Return the source of the class."""
        lines = [
            f"class {self.name}(nn.Module):",
            "    def __init__(self):",
            "        super().__init__()",
            *(f"        {line}" for line in self.made),
            "",
            f"    def forward(self, {self.arguments}):",
            *(f"        {line}" for line in self.done),
            "        return x",
        ]
        return "\n".join(lines)


def _keeps(line: str, value: int) -> bool:
    return line.startswith("self.size") and line.endswith(f" = {value}")
