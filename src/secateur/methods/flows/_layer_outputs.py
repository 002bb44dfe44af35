"""What every linear and convolutional layer gives out for a fixed set of inputs, pooled by unit.

Letters: B batch, S samples in all, N units of a layer, A units of all layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from secateur.errors import UsageError
from secateur.methods.flows._undisturbed import device_of, undisturbed
from secateur.structure import map_tensors, tensors_in

Inputs = Tensor | tuple[object, ...] | dict[str, object]


class LayerOutputs:
    """Runs a model on the same inputs again and again, and keeps one buffer for what comes out.

    A module that is called several times counts once a call. Layers stand in the order in which
    they are called.

    Args:
        model: The model.
        batches: What the model is called with.
        layers: Paths of the modules to look at; None for all linear and convolutional ones.

    Attributes:
        names: Path of the module of every call; empty until `collect`.
        widths: Units of every call.
        num_samples: S.

    Raises:
        UsageError: A path is unknown, or there are fewer than two samples.
    """

    def __init__(
        self, model: nn.Module, batches: Iterable[Inputs], layers: Sequence[str] | None
    ) -> None:
        self._model = model
        self._modules = _chosen(model, layers)
        device = device_of(model)
        self._batches = [map_tensors(lambda x: x.to(device), batch) for batch in batches]
        self._sizes = [_num_samples(batch) for batch in self._batches]
        self.num_samples = sum(self._sizes)
        if self.num_samples < 2:
            raise UsageError(
                f"The inputs hold {self.num_samples} sample(s), and a correlation needs at least "
                "2; a few thousand give a steady one. Pass a list of batches that the model takes."
            )
        self.names: tuple[str, ...] = ()
        self.widths: tuple[int, ...] = ()
        self._buffer_SA = torch.empty(0)
        self._calls: list[tuple[str, Tensor]] = []

    @torch.no_grad()
    def collect(self) -> Tensor:
        """Run the model on all inputs.

        Returns:
            Outputs before norm and activation, averaged over places, ``[S, A]``, layers one after
            another, at least float32; the next call writes into the same memory.

        Raises:
            UsageError: A layer's output has no batch axis, or not all batches call the same layers.
        """
        handles = [
            module.register_forward_hook(partial(self._keep, path))
            for path, module in self._modules.items()
        ]
        try:
            with undisturbed(self._model):
                start = 0
                for batch, size in zip(self._batches, self._sizes, strict=True):
                    self._run(batch, size, start)
                    start += size
        finally:
            self._calls = []
            _remove(handles)
        return self._buffer_SA

    def _run(self, batch: Inputs, size: int, start: int) -> None:
        self._calls = []
        _call(self._model, batch)
        pooled = [_by_sample(path, output, size) for path, output in self._calls]
        names = tuple(path for path, _ in self._calls)
        if not self.names:
            self._prepare(names, pooled)
        if names != self.names:
            raise UsageError(
                f"The first inputs call the layers {', '.join(self.names)}, and others call "
                f"{', '.join(names)}: their outputs cannot be paired. Name with layers=[...] those "
                "that every input goes through."
            )
        torch.cat(pooled, dim=1, out=self._buffer_SA[start : start + size])

    def _prepare(self, names: tuple[str, ...], pooled: list[Tensor]) -> None:
        if len(names) < 2:
            raise UsageError(
                f"This {type(self._model).__name__} calls {len(names)} of the chosen layers, and "
                "a flow goes from one layer to the next. It needs at least two linear or "
                "convolutional modules that are called as modules."
            )
        self.names = names
        self.widths = tuple(output.shape[1] for output in pooled)
        self._buffer_SA = pooled[0].new_empty(self.num_samples, sum(self.widths))

    def _keep(self, path: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        places = (
            range(2, output.dim()) if isinstance(module, _ConvNd) else range(1, output.dim() - 1)
        )
        self._calls.append((path, _pooled(output, list(places))))


def _chosen(model: nn.Module, layers: Sequence[str] | None) -> Mapping[str, nn.Module]:
    if layers is None:
        kinds = (nn.Linear, _ConvNd)
        return {path: m for path, m in model.named_modules() if isinstance(m, kinds)}
    modules = dict(model.named_modules())
    for path in layers:
        if not isinstance(modules.get(path), nn.Linear | _ConvNd):
            raise UsageError(
                f"layers names {path!r}, which is not a linear or convolutional module of this "
                f"{type(model).__name__}. Use paths as in `dict(model.named_modules())`."
            )
    return {path: modules[path] for path in layers}


def _num_samples(batch: Inputs) -> int:
    tensors = [tensor for tensor in tensors_in(batch) if tensor.dim() > 0]
    if not tensors:
        raise UsageError(
            f"One of the batches is {type(batch).__name__} without a tensor in it. Pass what the "
            "model takes: a tensor, a tuple of arguments or a dict of them, samples first."
        )
    return len(tensors[0])


def _call(model: nn.Module, batch: Inputs) -> None:
    if isinstance(batch, Mapping):
        model(**batch)
    elif isinstance(batch, tuple):
        model(*batch)
    else:
        model(batch)


def _pooled(output: Tensor, places: list[int]) -> Tensor:
    """Average over places at once, so that only the averages are kept until the model is done."""
    dtype = torch.promote_types(output.dtype, torch.float32)
    return output.mean(dim=places, dtype=dtype) if places else output.to(dtype)


def _by_sample(path: str, output: Tensor, size: int) -> Tensor:
    """Average over the windows of a sample, which stand behind one another, ``[B, N]``."""
    if output.dim() != 2 or len(output) == 0 or len(output) % size != 0:
        raise UsageError(
            f"{path} gives out {list(output.shape)} (rows, units) for {size} samples: the first "
            "axis does not hold the samples. Leave it out with layers=[...]."
        )
    return output if len(output) == size else output.view(size, -1, output.shape[1]).mean(dim=1)


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
