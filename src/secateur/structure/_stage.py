"""Runs a model once on the meta device under a tracer, and leaves no trace in the model.

Parameters and buffers are exchanged for meta twins, so nothing is computed and nothing of the
model is touched; whatever the forward leaves behind in the modules is put back afterwards.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from secateur.nn import SlimMultiheadAttention
from secateur.structure._autocast import autocast_on_meta
from secateur.structure._chance import seeded
from secateur.structure._inventory import named_modules
from secateur.structure._made import label_made, remember_shape
from secateur.structure._measured import keep_sizes
from secateur.structure._memory import Memory
from secateur.structure._module_call import Given, ModuleCall
from secateur.structure._nested import map_tensors
from secateur.structure._own_code import is_own_code
from secateur.structure._sizes import Resize, resized_attributes, shapes_of
from secateur.structure._slots import write_slot
from secateur.structure._stored import marked, note_uses
from secateur.structure._tape import Info, Tape
from secateur.structure._ties import note_ties
from secateur.structure._tracer import Tracer
from secateur.structure._unread import check_read
from secateur.structure._untold import note_untold
from secateur.structure._watch import watched_calls, watched_reads
from secateur.structure.rules import attach_info, info_of, is_plain_sum, keep_scale


class Stage:
    """A model whose parameters and buffers are meta twins, ready to be run under a tracer.

    Args:
        model: The model; it is as before once `open` is left.
        twins: Canonical name to meta twin, already labelled.
        names: id of a real tensor to its canonical name.
        stored: Module path to slot to the number it holds instead of its own.
    """

    def __init__(
        self,
        model: nn.Module,
        twins: Mapping[str, Tensor],
        names: Mapping[int, str],
        stored: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
    ) -> None:
        self.model = model
        self._twins = twins
        self._names = names
        self._stored = stored
        self._origins: dict[type, tuple[bool, bool]] = {}
        self._modules = named_modules(model)
        self._paths: dict[int, str] = {}
        for path, module in self._modules.items():
            self._paths.setdefault(id(module), path)
        self._is_resized = any(
            tensor is not None and tensor.shape != twins[names[id(tensor)]].shape
            for module in self._modules.values()
            for tensor in (*module._parameters.values(), *module._buffers.values())
        )

    @contextlib.contextmanager
    def open(self, *, training: bool) -> Generator[None]:
        """Exchange tensors for twins and set the mode; undo everything on the way out."""
        modules = {id(module): module for module in self._modules.values()}.values()
        saved = [(m, dict(m.__dict__), type(m)) for m in modules]
        checks = Distribution._validate_args
        hooks = [state[name] for _, state, _ in saved for name in _HOOKS]
        registered = [dict(own) if own else _NOTHING for own in hooks]
        fastpath = torch.backends.mha.get_fastpath_enabled()
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            Distribution.set_default_validate_args(False)  # it looks at every number
            shapes = [shapes_of(state) for _, state, _ in saved] if self._is_resized else []
            for module, state, _ in saved:
                self._exchange(module, state, training)
            for (module, _, _), old in zip(saved, shapes, strict=False):
                self._adjust_sizes(module, old)
            for module, _, _ in saved:
                self._mark(module)
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fastpath)
            Distribution.set_default_validate_args(checks)
            for module, state, kind in saved:
                object.__setattr__(module, "__class__", kind)
                module.__dict__.clear()
                module.__dict__.update(state)
            for own, before in zip(hooks, registered, strict=True):
                if len(own) != len(before):
                    own.clear()
                    own.update(before)

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
        if isinstance(module, nn.MultiheadAttention) and SlimMultiheadAttention.can_adopt(module):
            SlimMultiheadAttention.adopt_(module)

    def _adjust_sizes(self, module: nn.Module, old: Mapping[str, tuple[int, ...]]) -> None:
        """Let the numbers a module keeps follow the twins."""
        new = shapes_of(module.__dict__)
        if old != new:
            resize = Resize(module=module, traced=old, old=old, new=new)
            module.__dict__.update(resized_attributes(resize))

    def _mark(self, module: nn.Module) -> None:
        """Set the numbers a module keeps, and let them remember where that is."""
        own = module.__dict__
        path = self._paths.get(id(module), "?")
        for slot, number in self._stored.get(path, {}).items():
            write_slot(own, slot, number)
        if not self._origin(module)[0]:
            own.update(marked(path, own))

    def _origin(self, module: nn.Module) -> tuple[bool, bool]:
        """Tell whether a layer is PyTorch's own, and whether it is one of ours."""
        kind = type(module)
        if kind not in self._origins:
            # A parametrised layer keeps its own class behind one that is made for it.
            homes = (base.__module__ for base in kind.__mro__)
            home = next(home for home in homes if home != "torch.nn.utils.parametrize")
            ours = SlimMultiheadAttention.__module__.rpartition(".")[0]
            self._origins[kind] = home.startswith("torch.nn.modules"), home.startswith(ours)
        return self._origins[kind]

    def run(self, tape: Tape, example: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
        """Run the forward once and record it.

        Args:
            tape: Where the trace is written.
            example: Positional and keyword arguments.

        Returns:
            The forward's output, on the meta device.
        """
        tracer, memory = Tracer(tape, Stage.run.__code__), Memory()
        args, kwargs = map_tensors(_Inputs(), example)

        running: list[nn.Module] = []

        def read(module: nn.Module, file: str) -> None:
            if not (running and running[-1] is module) and not is_own_code(file):
                tape.consulted.add(self._paths.get(id(module), "?"))

        def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            parent = tracer.stack[-1] if tracer.stack else -1
            nodes = tuple(info_of(t).node for t in inputs if isinstance(t, Tensor))
            given = sum(value is not None for value in inputs)
            path = self._paths.get(id(module), "?")
            standard, proven = self._origin(module)
            call = ModuleCall(
                path=path,
                parent=parent,
                standard=standard,
                proven=proven,
                start=len(tape.nodes),
                inputs=nodes,
                num_arguments=given,
            )
            tracer.stack.append(len(tape.calls))
            running.append(module)
            tape.calls.append(call)
            note_untold(tape, path, module, inputs)

        def leave(
            module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Any
        ) -> None:
            call = tape.calls[tracer.stack.pop()]
            running.pop()
            call.stop = len(tape.nodes)
            memory.note(inputs, options, output)
            named = [value for value in options.values() if value is not None]
            call.num_arguments += len(named)
            call.inputs += tuple(info_of(t).node for t in named if isinstance(t, Tensor))
            first = inputs[0] if inputs else next(iter(options.values()), None)
            if isinstance(first, Tensor):
                with torch._C.DisableTorchFunction():
                    shape = tuple(first.shape)
                call.first = Given(call.inputs[0], shape, info_of(first).labels)
            call.returns_tuple = isinstance(output, (tuple, list))
            entries = output if call.returns_tuple else (output,)
            call.returns_values = any(e is not None and not isinstance(e, Tensor) for e in entries)
            found = [info_of(e) if isinstance(e, Tensor) else _UNKNOWN for e in entries]
            call.outputs = tuple([info.node for info in found])
            call.output_labels = tuple([info.labels for info in found])

        functions = _Functions(tape, tracer)
        watch = watched_calls(leave, enter), watched_reads(read)
        quiet = autocast_on_meta(), torch.no_grad(), seeded()
        with watch[0], watch[1], quiet[0], quiet[1], quiet[2], functions, tracer:
            output = self.model(*args, **kwargs)
        for tensor in memory.results(output):
            tape.freeze(info_of(tensor).labels, "is an output of the model")
            node = info_of(tensor).node
            if node is not None:
                tape.output_nodes.add(node)
        kept = (info_of(tensor).node for tensor in memory.kept(output))
        tape.kept_nodes.update(node for node in kept if node is not None)
        self._forget_caches(tape)
        return output

    def _forget_caches(self, tape: Tape) -> None:
        """Take back the ids of buffers that the forward replaced by others of another shape.

        Such a buffer keeps what was worked out for the last input, and is no part of the model.
        """
        for path, module in self._modules.items():
            for name, now in module._buffers.items():
                twin = self._twins.get(f"{path}.{name}" if path else name)
                if twin is not None and (now is None or now.shape != twin.shape):
                    for axis in range(twin.ndim):
                        tape.ranges.pop((f"{path}.{name}" if path else name, axis), None)


_HOOKS = tuple(name for name in vars(nn.Module()) if "hooks" in name and "state_dict" not in name)
"""Tables in which a module keeps its hooks: a forward may register some."""
_UNKNOWN = Info()
_NOTHING: Mapping[Any, Any] = MappingProxyType({})


class _Functions(TorchFunctionMode):
    """Keeps the name of the PyTorch function that the model's own code is calling."""

    def __init__(self, tape: Tape, tracer: Tracer) -> None:
        super().__init__()
        self._tape = tape
        self._tracer = tracer
        self._counts: Counter[tuple[str, str]] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Note the call and carry it out."""
        name, options = getattr(func, "__name__", ""), kwargs or {}
        check_read((*args, *options.values()))
        self._tape.function = (name, args)
        try:
            return self._carried_out(func, name, args, options)
        finally:
            self._tape.function = ("", ())

    def _carried_out(self, func: Any, name: str, args: tuple[Any, ...], options: Any) -> Any:
        stack = self._tracer.stack
        place = self._tape.calls[stack[-1]].path if stack else "", name
        self._tape.ordinal = self._counts[place]
        self._counts[place] += 1
        if func in _READS:
            return self._tracer.read(args[0], func, args[1:], options)
        if func is Tensor.item:
            return self._tracer.item(args[0])
        if func in _WHOLE or (func is torch.einsum and is_plain_sum(args)):
            # Below autograd, PyTorch hands composite operations on before it takes them apart.
            with torch._C._AutoDispatchBelowAutograd():
                return func(*args, **options)
        out = _UNCHECKED.get(func, func)(*args, **options)
        label_made(self._tape, name, args, options, out)
        note_uses(self._tape, name, args, options, out)
        note_ties(self._tape, name, args, options, out)
        keep_sizes(self._tape, name, args, options)
        if func is F.scaled_dot_product_attention:
            keep_scale(self._tape, args, options)
        return remember_shape(self._tape, func, name, args, out)


def _batch_norm(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise without minding that a single value a channel has no variance to train with."""
    return torch.batch_norm(x, weight, bias, mean, variance, training, momentum, eps, False)


_UNCHECKED: dict[Any, Any] = {F.batch_norm: _batch_norm}
"""What runs in place of functions that refuse an example which is large enough for a trace."""
_READS = frozenset((Tensor.tolist, Tensor.numpy, Tensor.__format__))
_WHOLE = frozenset(
    getattr(torch, name)
    for name in (
        "lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell",
        "rnn_relu_cell", "_pack_padded_sequence", "_pad_packed_sequence", "_weight_norm",
        "bilinear",
    )
)  # fmt: skip
"""Functions for which there is a rule, although PyTorch makes them of others."""


class _Inputs:
    """Turns real inputs into meta twins, each with a negative node number of its own."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        self._count += 1
        twin = torch.empty_like(tensor, device="meta")
        known = not tensor.is_floating_point() and tensor.device.type != "meta"
        value = tensor.detach().to("cpu", copy=True) if known else None
        attach_info(twin, Info(node=-self._count, value=value))
        return twin
