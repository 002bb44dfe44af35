"""The table of rules: one function for each kind of ATen operation, registered by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from secateur.structure._coupling import Operand, aligned
from secateur.structure._label import Label
from secateur.structure._tape import Info, Tape

_INFO = "_secateur_info"


def info_of(tensor: Tensor) -> Info:
    """Return what the tracer knows of a tensor; nothing for a tensor it has not seen."""
    found = getattr(tensor, _INFO, None)
    return found if found is not None else Info()


def attach_info(tensor: Tensor, info: Info) -> None:
    """Remember something about a tensor for as long as the tensor lives."""
    setattr(tensor, _INFO, info)


@dataclass(slots=True)
class Call:
    """One ATen call that is being traced.

    Attributes:
        tape: Where the rule writes.
        func: The operation.
        args: Positional arguments; tensors live on the meta device.
        kwargs: Keyword arguments.
    """

    tape: Tape
    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def run(self) -> Any:
        """Execute the operation on the meta device."""
        return self.func(*self.args, **self.kwargs)

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """Read an argument given by position or by name."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def labels(self, position: int = 0) -> tuple[Label, ...]:
        """Labels of a tensor argument."""
        value = self.args[position]
        return info_of(value).labels if isinstance(value, Tensor) else ()

    def operands(self, tensors: Iterable[Any], ndim: int) -> list[Operand]:
        """Right-align tensor arguments to a common number of axes."""
        return [self._operand(t, ndim) for t in tensors if isinstance(t, Tensor)]

    def _operand(self, tensor: Tensor, ndim: int) -> Operand:
        """Align one tensor; an axis along which it repeats itself is as good as one of size 1."""
        labels = info_of(tensor).labels
        shape = list(tensor.shape)
        if not labels and 0 in tensor.stride():
            # The size may be a number that the model keeps, so it is tried at another one.
            self.tape.doubts.append(self.tape.nodes[-1])
            steps = tensor.stride()
            shape = [1 if step == 0 else n for n, step in zip(shape, steps, strict=True)]
        return aligned(labels, shape, ndim)

    def put(self, out: Tensor, labels: Sequence[Label]) -> Tensor:
        """Attach labels to a result."""
        attach_info(out, Info(labels=tuple(labels)))
        return out

    def keep_name(self, out: Tensor) -> Tensor:
        """Remember that a result is still the stored parameter, in another layout."""
        name = info_of(self.args[0]).tensor
        if name is not None:
            info_of(out).tensor = name
        return out


Rule = Callable[[Call], Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operations.

    Args:
        *names: Names without overload, such as ``"add"`` for ``aten.add.Tensor``.

    Returns:
        A decorator that returns the function unchanged.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            assert name not in RULES, f"two rules for aten::{name}"
            RULES[name] = function
        return function

    return register


def empty_like_shape(reference: Tensor, shape: Sequence[int]) -> Tensor:
    """Make a meta tensor by hand; the meta kernels of some operations are slow Python code."""
    return torch.empty(shape, dtype=reference.dtype, device="meta")


def empty_like(reference: Tensor) -> Tensor:
    """Do as `torch.empty_like`, which is slow Python code on the meta device."""
    if reference.is_contiguous():
        return empty_like_shape(reference, reference.shape)
    return torch.empty_like(reference)


def positive_axes(axes: Any, ndim: int) -> frozenset[int]:
    """Turn an axis, a list of axes or None (all) into a set of axes counted from the front."""
    if axes is None or axes == []:
        return frozenset(range(ndim))
    if isinstance(axes, int):
        axes = [axes]
    return frozenset(a % ndim if ndim else 0 for a in axes)
