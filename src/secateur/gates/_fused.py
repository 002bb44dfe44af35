"""Calls with several consumers inside: made again with units silenced in the weights themselves.

What goes into such a weight cannot be seen, so all samples get the same mask.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from secateur.structure import tensors_in

_RECURRENT = (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
_FUSED = frozenset((
    *_RECURRENT, torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell,
    torch.bilinear, F.multi_head_attention_forward,
))  # fmt: skip

Silence = tuple[Tensor, int, Tensor]
"""A weight, one of its axes, and the positions there that are silenced."""


class FusedCall:
    """One call that is about to be made; keeps the random states it finds.

    Args:
        function: What is called.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Attributes:
        tensors: Every tensor among the arguments.
    """

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None:
        self.tensors = tuple(tensors_in((args, kwargs)))
        self._function, self._args, self._kwargs = function, args, kwargs
        self._device = self.tensors[0].device
        self._state = torch.get_rng_state()
        self._device_state = None
        if self._device.type != "cpu":
            module = torch.get_device_module(self._device)
            self._device_state = module.get_rng_state(self._device)

    def silenced(self, silences: Iterable[Silence]) -> Tensor:
        """Make the call again, with the same random numbers.

        Args:
            silences: What is zero meanwhile.

        Returns:
            The first tensor it returns.
        """
        with self._same_draws(), _zeroed(silences):
            return first_tensor(self._function(*self._args, **self._kwargs))

    @contextmanager
    def _same_draws(self) -> Generator[None]:
        on_cpu = self._device_state is None
        kind = "cuda" if on_cpu else self._device.type
        with torch.random.fork_rng([] if on_cpu else [self._device], device_type=kind):
            torch.set_rng_state(self._state)
            if self._device_state is not None:
                module = torch.get_device_module(self._device)
                module.set_rng_state(self._device_state, self._device)
            yield


def fused(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> FusedCall | None:
    """Recognise a call with consumers inside that can be made again.

    Args:
        function: What is called.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Returns:
        The call, or None if it is another one.
    """
    if function not in _FUSED or not tensors_in((args, kwargs)):
        return None
    call = FusedCall(function, args, kwargs)
    # Dropout between recurrent layers has a random state of its own on GPUs, out of reach.
    drops = any(isinstance(value, float) and value > 0 for value in args)
    return None if function in _RECURRENT and drops and call.tensors[0].is_cuda else call


def first_tensor(result: object) -> Tensor:
    """Return what is compared: outputs come before weights and states.

    Args:
        result: What a call returned.

    Returns:
        Its first tensor.
    """
    return tensors_in(result)[0]


@contextmanager
def _zeroed(silences: Iterable[Silence]) -> Generator[None]:
    """Zero slices of weights for a moment; autograd does not notice."""
    kept: list[tuple[Tensor, int, Tensor, Tensor]] = []
    try:
        for weight, axis, position in silences:
            data = weight.data
            kept.append((data, axis, position, data.index_select(axis, position)))
            data.index_fill_(axis, position, 0)
        yield
    finally:
        for data, axis, position, values in reversed(kept):
            data.index_copy_(axis, position, values)
