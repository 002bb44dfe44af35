"""The arguments of a forward, at the batch size of an example or at another one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from secateur.errors import UsageError

ExampleInputs = Tensor | tuple[Any, ...] | Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inputs:
    """Arguments of a forward.

    Attributes:
        args: Positional ones.
        kwargs: Keyword ones.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, example_inputs: ExampleInputs) -> Inputs:
        """Sort what a user gave into positional and keyword arguments.

        Args:
            example_inputs: A tensor, a tuple of positional or a dict of keyword arguments.

        Returns:
            The arguments.

        Raises:
            UsageError: If it is none of these.
        """
        if isinstance(example_inputs, Tensor):
            return cls(args=(example_inputs,), kwargs={})
        if isinstance(example_inputs, tuple):
            return cls(args=example_inputs, kwargs={})
        if isinstance(example_inputs, Mapping):
            return cls(args=(), kwargs=dict(example_inputs))
        raise UsageError(
            f"example_inputs is a {type(example_inputs).__name__}, expected a tensor, a tuple of "
            "positional or a dict of keyword arguments of the model's forward."
        )

    @property
    def leaves(self) -> list[Any]:
        """Everything in the arguments that is no container, in order."""
        return tree_leaves((self.args, self.kwargs))

    @property
    def batch_size(self) -> int | None:
        """Size of the first tensor's first axis, or None where there is none."""
        sizes = [leaf.shape[0] for leaf in self.leaves if isinstance(leaf, Tensor) and leaf.ndim]
        return sizes[0] if sizes else None

    def is_batched(self, leaf: object) -> bool:
        """Tell whether the first axis of an argument counts samples."""
        return isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == self.batch_size

    def repeated(self, times: int) -> Inputs:
        """Return the same samples several times over."""

        def grow(leaf: Any) -> Any:
            return torch.cat([leaf] * times) if self.is_batched(leaf) else leaf

        return Inputs(args=tree_map(grow, self.args), kwargs=tree_map(grow, self.kwargs))
