"""Follows every ATen operation of a forward pass on the meta device with labels."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from secateur.errors import TraceError
from secateur.structure._label import Label
from secateur.structure._own_code import is_own_code
from secateur.structure._tape import CONSTANT_ID, Info, Node, Tape
from secateur.structure._unread import refuse, unread
from secateur.structure._values import (
    MAX_ELEMENTS,
    Values,
    accepted,
    as_positions,
    is_mask,
    overwritten,
    results,
)
from secateur.structure.rules import (
    RULES,
    Call,
    Rule,
    attach_info,
    fix_references,
    follow_references,
    info_of,
    pointwise,
    refer,
)

_LAYOUT_NUMBERS = {
    "view", "_unsafe_view", "expand", "slice", "split", "split_with_sizes", "select",
    "native_layer_norm", "native_group_norm", "_fused_rms_norm", "repeat", "as_strided",
    "constant_pad_nd", "pixel_shuffle", "pixel_unshuffle", "permute", "transpose", "unsqueeze",
    "squeeze", "cat", "stack", "unbind", "convolution", "native_channel_shuffle", "new_zeros",
    "new_ones", "new_empty", "new_full", "empty_like", "_to_copy", "clone",
}  # fmt: skip

_READ = "a Python number is read from computed data"
_WRITTEN = "secateur.written"
"""What stands in the graph for a tensor after a view of it was written to."""


@dataclass(frozen=True, slots=True)
class _Operation:
    """What is to be known of an ATen operation; asking its schema each time is slow.

    Attributes:
        func: The overload.
        name: Such as ``aten.add``.
        rule: The rule that follows it.
        keeps_scalars: Whether its number arguments have to stay as they are in a smaller model.
        is_dynamic: Whether the shape of its result may depend on data.
        is_mutable: Whether it writes to an argument.
        returns_number: Whether it hands a tensor's content to Python.
    """

    func: Any
    name: str
    rule: Rule
    keeps_scalars: bool
    is_dynamic: bool
    is_mutable: bool
    returns_number: bool

    @classmethod
    def of(cls, func: Any) -> _Operation:
        """Look an operation up."""
        name = func._schema.name.replace("::", ".")
        plain = name.removeprefix("aten.")
        return cls(
            func=func,
            name=name,
            rule=_find_rule(func),
            keeps_scalars=plain not in _LAYOUT_NUMBERS,
            is_dynamic=torch.Tag.dynamic_output_shape in func.tags,
            is_mutable=func._schema.is_mutable,
            returns_number=plain in ("_local_scalar_dense", "is_nonzero", "equal"),
        )


class Tracer(TorchDispatchMode):
    """Dispatch mode that hands every ATen call to its rule.

    Args:
        tape: Where the trace is written.
        outermost: Code that calls the model; frames beyond it are not the model's.
    """

    def __init__(self, tape: Tape, outermost: CodeType) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tape = tape
        self._outermost = outermost
        self.stack: list[int] = []
        self.values = Values()
        self._operations: dict[Any, _Operation] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Trace one call; see `torch.utils._python_dispatch.TorchDispatchMode`."""
        operation = self._operations.get(func)
        if operation is None:
            operation = self._operations[func] = _Operation.of(func)
        kwargs = dict(kwargs or {})
        tensors = _tensors_in(args, kwargs)
        if not all(t.is_meta for t in tensors):
            args, kwargs = tree_map_only(Tensor, _on_meta, (args, kwargs))
            tensors = _tensors_in(args, kwargs)
        if kwargs.get("device") is not None or not tensors:
            kwargs["device"] = torch.device("meta")
        infos = [info_of(t) for t in tensors]
        self.values.refresh(infos)
        node = self._node(operation, args, tensors, infos)
        if self.tape.allowance is not None:
            self.tape.allowance.check(node.index + 1, lambda: node.reason("it is here"))
        value = self._content(operation, args, kwargs, tensors, infos)
        if operation.returns_number:
            return self._number(infos, value)
        if not tensors:
            kwargs = accepted(func, kwargs)
        out = self._out(operation, args, kwargs, value)
        follow_references(Call(self.tape, func, args, kwargs), infos, out)
        twins = [t for t, i in zip(tensors, infos, strict=True) if i.tensor and i.node is None]
        self._sign_all(out, node, value, twins)
        if operation.is_mutable:
            for target in overwritten(func, args, kwargs):
                if target._base is not None:
                    self._sign_base(target._base, node)
        return out

    def _sign_base(self, base: Tensor, node: Node) -> None:
        """Note that a tensor was written to through a view of it: whoever reads it reads that."""
        info = info_of(base)
        if info.node is None and info.tensor is not None:
            return
        before = () if info.node is None else (info.node,)
        written = Node(
            index=len(self.tape.nodes),
            operation=_WRITTEN,
            module=node.module,
            call=node.call,
            file=node.file,
            line=node.line,
            inputs=(*before, node.index),
            shape=tuple(base.shape),
        )
        self.tape.nodes.append(written)
        attach_info(base, Info(info.labels, written.index, None, info.value))

    def _sign_all(self, out: Any, node: Node, value: Any, twins: list[Tensor]) -> None:
        """Note on every result which operation made it, and what it holds where that is known."""
        values = value if isinstance(value, (list, tuple)) else itertools.repeat(value)
        for result, known in zip(results(out), values, strict=False):
            if all(result is not stored for stored in twins):
                self._sign(result, node, known)
            elif isinstance(known, Tensor):
                info_of(result).value = known
        first = next(results(out), None)
        if first is not None:
            node.shape = tuple(first.shape)

    def _node(
        self, operation: _Operation, args: Any, tensors: list[Tensor], infos: list[Info]
    ) -> Node:
        file, line = _caller(self._outermost)
        node = Node(
            index=len(self.tape.nodes),
            operation=operation.name,
            module=self.tape.calls[self.stack[-1]].path if self.stack else "",
            call=self.stack[-1] if self.stack else -1,
            file=file,
            line=line,
            inputs=tuple(i.node for i in infos if i.node is not None),
            tensors=tuple(i.tensor for i in infos if i.tensor is not None and i.node is None),
            labels=tuple(label for i in infos for label in _by_axes(i.labels)),
            scalars=tuple(a for a in args if isinstance(a, (int, float, bool)))
            if operation.keeps_scalars
            else (),
            shape=tuple(tensors[0].shape) if tensors else (),
            num_operands=len(tensors),
        )
        self.tape.nodes.append(node)
        return node

    def _out(self, operation: _Operation, args: Any, kwargs: Any, value: Any) -> Any:
        if operation.name.startswith("aten.index") and isinstance(args[1], (list, tuple)):
            args = (args[0], as_positions(args[1]), *args[2:])
        if operation.is_dynamic and not _fixed_shape(operation, args):
            if value is not None:
                return self._of_known_shape(operation, _tensors_in(args, kwargs), value)
            reason = self.tape.reason("the shape of a result depends on the data")
            raise TraceError(
                f"The forward cannot be traced: {reason}. Expected a forward whose shapes follow "
                "from the shapes of its inputs, and from masks and numbers that it is given as "
                "such. Multiply by the mask instead of selecting, make the mask an argument of the "
                "model, or trace the part of the model before the selection."
            )
        return operation.rule(Call(self.tape, operation.func, args, kwargs))

    def _of_known_shape(self, operation: _Operation, tensors: list[Tensor], value: Any) -> Any:
        """Return a result whose shape is known, or taken as largest, though data decide on it."""
        message = "decides on the shape of a result"
        out = tree_map_only(Tensor, _shaped_like, value)
        labels = [label for t in tensors for label in info_of(t).labels]
        if operation.name == "aten.nonzero":
            self.tape.pass_share_on()
            if tensors[0].ndim == 1 and len(labels) == 1:
                # Which units were chosen at all.
                self.tape.mark_shared(labels[0], message)
                refer(out, labels[0].ids.ravel())
                return out
        self.tape.freeze(labels, message)
        return out

    def _content(
        self,
        operation: _Operation,
        args: Any,
        kwargs: Any,
        tensors: list[Tensor],
        infos: list[Info],
    ) -> Any:
        """Work out what an operation returns where that is known, or has to be said."""
        value = self.values.compute(operation.func, args, kwargs, tensors, infos)
        if operation.name == "aten.nonzero":
            return _positions_of_units(infos[0], value)
        return value

    def _number(self, infos: Sequence[Info], value: Any) -> Any:
        """Hand a number to Python; where one is indexed with, the rule of `select` follows it."""
        if self.tape.function[0] != "__getitem__":
            fix_references(self.tape, infos)
        return self._scalar(value)

    def _scalar(self, value: Any) -> Any:
        if value is None:
            refuse(self.tape.reason(_READ))
        return value

    def read(self, tensor: Tensor, func: Any, args: Any, kwargs: Any) -> Any:
        """Hand the content of a tensor to Python, as `torch.Tensor.tolist` does."""
        fix_references(self.tape, [info_of(tensor)])
        return func(self._scalar(self.values.known(tensor)), *args, **kwargs)

    def item(self, tensor: Tensor) -> Any:
        """Hand the one number of a tensor to Python, if that is known."""
        fix_references(self.tape, [info_of(tensor)])
        value = self.values.known(tensor)
        return unread(self.tape.reason(_READ)) if value is None else value.item()

    def _sign(self, result: Tensor, node: Node, value: Any) -> None:
        info = info_of(result)
        attach_info(result, Info(info.labels, node.index, info.tensor, refers=info.refers))
        if isinstance(value, Tensor) and value.shape == result.shape:
            info_of(result).value = value


def _positions_of_units(mask: Info, every: Tensor | None) -> Tensor | None:
    """Let data choose every unit of one axis, but not what is there beside the units."""
    if mask.value is not None or len(mask.labels) != 1 or mask.labels[0].ids.ndim != 1:
        return every
    return torch.from_numpy(np.argwhere(mask.labels[0].ids != CONSTANT_ID))


def _fixed_shape(operation: _Operation, args: Any) -> bool:
    """Tell whether an indexing operation uses positions rather than masks."""
    if operation.name == "aten.masked_select":
        return info_of(args[1]).value is not None
    if not operation.name.startswith("aten.index"):
        return False
    return not any(i is not None and is_mask(i) for i in args[1])


def _shaped_like(value: Tensor) -> Tensor:
    return torch.empty_like(value, device="meta")


def _find_rule(func: Any) -> Rule:
    name = func._schema.name.removeprefix("aten::")
    found = RULES.get(name) or RULES.get(name.removesuffix("_"))
    if found is not None:
        return found
    return pointwise if torch.Tag.pointwise in func.tags else _unknown


def _unknown(call: Call) -> Any:
    """An operation without a rule fixes every position it touches."""
    tensors = _tensors_in(call.args, call.kwargs)
    labels = [label for t in tensors for label in info_of(t).labels]
    if labels:
        name = call.func._schema.name.replace("::", ".")
        call.tape.freeze(labels, f"meets {name}, for which there is no rule")
    try:
        out = call.run()
    except (RuntimeError, NotImplementedError) as error:
        reason = call.tape.reason("an operation without a rule cannot run on meta tensors")
        raise TraceError(
            f"The forward cannot be traced: {reason}. Expected operations of PyTorch, or others "
            "that say what shape they return, whatever the data. Trace the part of the model "
            "before this operation."
        ) from error
    for result in results(out):
        call.put(result, ())
    return out


def _by_axes(labels: tuple[Label, ...]) -> Sequence[Label]:
    """Order an operand's labels by their axes: which came first depends on the layers left."""
    if len(labels) < 2:
        return labels
    return sorted(labels, key=lambda label: sorted(label.axes))


def _tensors_in(args: Any, kwargs: Any) -> list[Tensor]:
    found = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += [v for v in value if isinstance(v, Tensor)]
    return found


def _on_meta(tensor: Tensor) -> Tensor:
    """Stand in for a tensor the model holds outside its parameters and buffers."""
    if tensor.device.type == "meta":
        return tensor
    twin = torch.empty_like(tensor, device="meta")
    known = tensor.numel() <= MAX_ELEMENTS
    attach_info(twin, Info(value=tensor.detach().to("cpu", copy=True) if known else None))
    return twin


def _caller(outermost: CodeType) -> tuple[str, int]:
    """Find the line of the model's own code that led to the running operation, if any did."""
    frame = sys._getframe(3)
    while frame is not None and frame.f_code is not outermost:
        file = frame.f_code.co_filename
        if not is_own_code(file):
            return file, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return "", 0
