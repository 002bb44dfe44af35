"""Runs a model once on the meta device and follows every ATen operation with labels.

Parameters and buffers are exchanged for meta twins, so nothing is computed and nothing of the
model is touched; whatever the forward leaves behind in the modules is put back afterwards.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from secateur.errors import TraceError
from secateur.nn import SlimMultiheadAttention
from secateur.structure._tape import Info, ModuleCall, Node, Tape
from secateur.structure.rules import RULES, Call, Rule, attach_info, info_of, pointwise

_OWN_CODE = tuple(
    f"{folder}{os.sep}" for folder in (Path(torch.__file__).parent, Path(__file__).parents[1])
)
_MAX_VALUE_ELEMENTS = 2_000_000
_RANDOM = ("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial")
_RESHAPING = {"view", "_unsafe_view", "expand", "slice", "split", "split_with_sizes", "select"}
_LAYOUT_NUMBERS = _RESHAPING | {
    "native_layer_norm", "native_group_norm", "_fused_rms_norm", "repeat", "as_strided",
    "constant_pad_nd", "pixel_shuffle", "pixel_unshuffle", "permute", "transpose", "unsqueeze",
    "squeeze", "cat", "stack", "unbind", "convolution", "native_channel_shuffle", "new_zeros",
    "new_ones", "new_empty", "new_full", "empty_like", "_to_copy", "clone",
}  # fmt: skip


class Tracer(TorchDispatchMode):
    """Dispatch mode that hands every ATen call to its rule.

    Args:
        tape: Where the trace is written.
    """

    def __init__(self, tape: Tape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tape = tape
        self.stack: list[int] = []
        self._rules: dict[Any, Rule] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Trace one call; see `torch.utils._python_dispatch.TorchDispatchMode`."""
        kwargs = dict(kwargs or {})
        tensors = _tensors_in(args, kwargs)
        if any(t.device.type != "meta" for t in tensors):
            args, kwargs = tree_map_only(Tensor, _on_meta, (args, kwargs))
            tensors = _tensors_in(args, kwargs)
        if kwargs.get("device") is not None or not tensors:
            kwargs["device"] = torch.device("meta")
        infos = [info_of(t) for t in tensors]
        node = self._node(func, args, tensors, infos)
        value = _known_value(func, args, kwargs, tensors, infos)
        if func._schema.name in ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal"):
            return self._scalar(value)
        if not tensors:
            kwargs = _accepted(func, kwargs)
        out = self._out(func, args, kwargs, value)
        twins = [t for t, i in zip(tensors, infos, strict=True) if i.tensor and i.node is None]
        for result in _results(out):
            if all(result is not stored for stored in twins):
                self._sign(result, node, value)
        return out

    def _node(self, func: Any, args: Any, tensors: list[Tensor], infos: list[Info]) -> Node:
        file, line = _caller()
        name = func._schema.name.replace("::", ".")
        node = Node(
            index=len(self.tape.nodes),
            operation=name,
            module=self.tape.calls[self.stack[-1]].path if self.stack else "",
            call=self.stack[-1] if self.stack else -1,
            file=file,
            line=line,
            inputs=tuple(i.node for i in infos if i.node is not None),
            tensors=tuple(i.tensor for i in infos if i.tensor is not None and i.node is None),
            labels=tuple(label for i in infos for label in i.labels),
            scalars=()
            if name.removeprefix("aten.") in _LAYOUT_NUMBERS
            else tuple(a for a in args if isinstance(a, (int, float, bool))),
            shape=tuple(tensors[0].shape) if tensors else (),
        )
        self.tape.nodes.append(node)
        return node

    def _out(self, func: Any, args: Any, kwargs: Any, value: Any) -> Any:
        call = Call(self.tape, func, args, kwargs)
        rule = self._rules.get(func)
        if rule is None:
            rule = self._rules[func] = _find_rule(func)
        if torch.Tag.dynamic_output_shape in func.tags and not _fixed_shape(func, args):
            if isinstance(value, Tensor):
                return torch.empty_like(value, device="meta")
            reason = self.tape.reason("the shape of a result depends on the data")
            raise TraceError(
                f"The forward cannot be traced: {reason}. Expected a forward whose shapes follow "
                "from the shapes of its inputs. Move the selection out of the model."
            )
        return rule(call)

    def _scalar(self, value: Any) -> Any:
        if value is None:
            reason = self.tape.reason("a Python number is read from computed data")
            raise TraceError(
                f"The forward cannot be traced: {reason}. Expected control flow that does not "
                "depend on the data. Trace the part of the model without it."
            )
        return value

    def _sign(self, result: Tensor, node: Node, value: Any) -> None:
        info = info_of(result)
        attach_info(result, Info(info.labels, node.index, info.tensor))
        node.shape = tuple(result.shape)
        if isinstance(value, Tensor) and value.shape == result.shape:
            info_of(result).value = value


class _Functions(TorchFunctionMode):
    """Keeps the name of the PyTorch function that the model's own code is calling."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self._tape = tape

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Note the call and carry it out."""
        self._tape.function = (getattr(func, "__name__", ""), args)
        return func(*args, **(kwargs or {}))


def _fixed_shape(func: Any, args: Any) -> bool:
    """Tell whether an indexing operation uses positions rather than masks."""
    if not func._schema.name.startswith("aten::index"):
        return False
    return not any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])


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
        call.tape.unknown.add(name)
        call.tape.freeze(labels, f"meets {name}, for which there is no rule")
    out = call.run()
    for result in _results(out):
        call.put(result, ())
    return out


def _results(out: Any) -> Iterator[Tensor]:
    if isinstance(out, Tensor):
        yield out
    elif isinstance(out, (tuple, list)):
        for item in out:
            yield from _results(item)


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
    known = tensor.numel() <= _MAX_VALUE_ELEMENTS
    attach_info(twin, Info(value=tensor.detach().cpu() if known else None))
    return twin


@functools.cache
def _argument_names(func: Any) -> frozenset[str]:
    return frozenset(argument.name for argument in func._schema.arguments)


def _accepted(func: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    names = _argument_names(func)
    return {name: value for name, value in kwargs.items() if name in names}


def _known_value(
    func: Any, args: Any, kwargs: Any, tensors: list[Tensor], infos: list[Info]
) -> Any:
    """Compute a result for real where all that goes into it is known and small."""
    if any(i.value is None for i in infos) or func._schema.is_mutable:
        return None
    name = func._schema.name.removeprefix("aten::")
    if not tensors and (name.startswith(_RANDOM) or name.startswith("empty")):
        return None

    def real(tensor: Tensor) -> Tensor:
        value = info_of(tensor).value
        assert value is not None
        return value

    arguments, options = tree_map_only(Tensor, real, (args, kwargs))
    if options.get("device") is not None:
        options["device"] = torch.device("cpu")
    options = _accepted(func, options)
    value = func(*arguments, **options)
    small = not isinstance(value, Tensor) or value.numel() <= _MAX_VALUE_ELEMENTS
    return value if small else None


def is_own_code(file: str) -> bool:
    """Tell whether a source file belongs to PyTorch or to this package."""
    return file.startswith(_OWN_CODE)


def _caller() -> tuple[str, int]:
    """Find the line of the model's own code that led to the running operation, if any did."""
    frame = sys._getframe(3)
    while frame is not None and frame.f_code is not Stage.run.__code__:
        file = frame.f_code.co_filename
        if not is_own_code(file):
            return file, frame.f_lineno
        frame = frame.f_back  # type: ignore[assignment]
    return "", 0


class Stage:
    """A model whose parameters and buffers are meta twins, ready to be run under a tracer.

    Args:
        model: The model; it is as before once `open` is left.
        twins: Canonical name to meta twin, already labelled.
        names: id of a real tensor to its canonical name.
    """

    def __init__(
        self, model: nn.Module, twins: Mapping[str, Tensor], names: Mapping[int, str]
    ) -> None:
        self.model = model
        self._twins = twins
        self._names = names
        self._paths = {id(module): path for path, module in model.named_modules()}

    @contextlib.contextmanager
    def open(self, *, training: bool) -> Generator[None]:
        """Exchange tensors for twins and set the mode; undo everything on the way out."""
        saved = [(m, dict(m.__dict__), type(m)) for m in self.model.modules()]
        fastpath = torch.backends.mha.get_fastpath_enabled()
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            for module, state, _ in saved:
                self._exchange(module, state, training)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fastpath)
            for module, state, kind in saved:
                object.__setattr__(module, "__class__", kind)
                module.__dict__.clear()
                module.__dict__.update(state)

    def _exchange(self, module: nn.Module, state: dict[str, Any], training: bool) -> None:
        own = module.__dict__
        for kind in ("_parameters", "_buffers"):
            own[kind] = {
                name: None if tensor is None else self._twins[self._names[id(tensor)]]
                for name, tensor in state[kind].items()
            }
        own["training"] = training
        for name, value in state.items():
            if type(value) is dict and not name.startswith("_"):
                own[name] = dict(value)
        if isinstance(module, nn.RNNBase):
            own["_flat_weights"] = [own["_parameters"].get(n) for n in module._flat_weights_names]
        if type(module) is nn.MultiheadAttention:
            SlimMultiheadAttention.adopt_(module)
        _mirror_sizes(module, own)

    def run(self, tape: Tape, example: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
        """Run the forward once and record it.

        Args:
            tape: Where the trace is written.
            example: Positional and keyword arguments.

        Returns:
            The forward's output, on the meta device.
        """
        tracer = Tracer(tape)
        args, kwargs = tree_map_only(Tensor, _Inputs(), example)

        def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            parent = tracer.stack[-1] if tracer.stack else -1
            nodes = tuple(info_of(t).node for t in inputs if isinstance(t, Tensor))
            given = sum(value is not None for value in inputs)
            path = self._paths.get(id(module), "?")
            home = type(module).__module__
            call = ModuleCall(
                path=path,
                parent=parent,
                standard=home.startswith("torch.nn.modules"),
                proven=home.startswith(SlimMultiheadAttention.__module__.rpartition(".")[0]),
                start=len(tape.nodes),
                inputs=nodes,
                num_arguments=given,
            )
            tracer.stack.append(len(tape.calls))
            tape.calls.append(call)

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            call = tape.calls[tracer.stack.pop()]
            call.stop = len(tape.nodes)
            call.returns_tuple = isinstance(output, (tuple, list))
            entries = output if call.returns_tuple else (output,)
            call.outputs = tuple(
                info_of(t).node if isinstance(t, Tensor) else None for t in entries
            )

        hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
        try:
            with torch.no_grad(), _Functions(tape), tracer:
                output = self.model(*args, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()
        for tensor in _leaves(output):
            tape.freeze(info_of(tensor).labels, "is an output of the model")
            node = info_of(tensor).node
            if node is not None:
                tape.output_nodes.add(node)
        return output


def _mirror_sizes(module: nn.Module, own: dict[str, Any]) -> None:
    """Let the attributes that a standard forward reads follow the twins' sizes."""
    weight = own["_parameters"].get("weight")
    if weight is None:
        return
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        own["normalized_shape"] = tuple(weight.shape)
    elif isinstance(module, _NormBase):
        own["num_features"] = weight.shape[0]
    elif isinstance(module, nn.GroupNorm):
        own["num_channels"] = weight.shape[0]
        if module.num_groups == module.num_channels:
            own["num_groups"] = weight.shape[0]
    elif isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels:
        channels = module.in_channels if module.transposed else module.out_channels
        own["groups"] = module.groups * weight.shape[0] // channels


class _Inputs:
    """Turns real inputs into meta twins, each with a negative node number of its own."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        self._count += 1
        twin = torch.empty_like(tensor, device="meta")
        known = not tensor.is_floating_point() and tensor.device.type != "meta"
        value = tensor.detach().cpu() if known else None
        attach_info(twin, Info(node=-self._count, value=value))
        return twin


def _leaves(output: Any) -> list[Tensor]:
    flat, _ = tree_flatten(output)
    found = []
    for leaf in flat:
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, nn.Module):
            found += [v for v in tree_flatten(list(vars(leaf).values()))[0] if _is_tensor(v)]
    return found


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)
