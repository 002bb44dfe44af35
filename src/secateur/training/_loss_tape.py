"""Records how the user's code computes the loss from the model's output, and where it ends."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import (
    TorchFunctionMode,
    _get_current_function_mode_stack,
    _pop_mode,
    _push_mode,
)

from secateur.training._loss_program import (
    Call,
    Forward,
    LossProgram,
    NotReplayableError,
    find_program,
    leaves,
    storage_of,
)
from secateur.training._surroundings import Autocast, Randomness

# A loss takes tens of calls. A loop that never calls backward would fill the memory.
MOST_CALLS = 10_000

BACKWARDS = (Tensor.backward, torch.autograd.backward)


class LossTape(TorchFunctionMode):
    """Listens to every torch call between the model's output and backward.

    Only steps that measure a loss have a tape. It lies at the bottom of the stack of modes, so that
    modes which the user enters and leaves meanwhile find the stack as they expect it.

    Args:
        device_type: Kind of device whose autocast state belongs to a call.
        on_loss: Called after each backward with the program of its loss.
        on_failure: Called instead where the loss cannot be computed again, with the reason.
    """

    def __init__(
        self,
        device_type: str,
        on_loss: Callable[[LossProgram], None],
        on_failure: Callable[[str], None],
    ) -> None:
        super().__init__()
        self._device_type = device_type
        self._on_loss = on_loss
        self._on_failure = on_failure
        self._recording = False
        self._backward_seen = False
        self._calls: list[Call] = []
        self._forwards: list[Forward] = []
        self._inside: set[int] = set()
        self._outside: set[int] = set()
        self._randomness: Randomness | None = None

    def listen(self, forward: Forward) -> None:
        """Start or go on to record, after the model returned.

        Args:
            forward: The call, with what it returned.
        """
        if self._backward_seen:
            self._forget()
        self._forwards.append(forward)
        self._inside |= {storage_of(tensor) for tensor in forward.returned}
        self._randomness = Randomness.present(forward.randomness.device)
        self._recording = True
        if not any(mode is self for mode in _get_current_function_mode_stack()):
            _push_at_bottom(self)

    def pause(self) -> None:
        """Stop recording until the next `listen`: the model itself is not part of the loss."""
        self._recording = False

    def leave(self) -> None:
        """Stop recording and leave the stack of modes, wherever in it the tape lies."""
        self._recording = False
        self._forget()
        modes = _get_current_function_mode_stack()
        if any(mode is self for mode in modes):
            _replace_stack([mode for mode in modes if mode is not self])

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if not self._recording:
            return func(*args, **kwargs)
        if func in BACKWARDS:
            result = func(*args, **kwargs)
            self._end(args[0] if args else kwargs["tensors"])
            return result
        return self._record(func, args, kwargs)

    def _record(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        inputs = leaves((args, kwargs))
        versions = [_version(tensor) for tensor in inputs]
        result = func(*args, **kwargs)
        writes = [t for t, before in zip(inputs, versions, strict=True) if _version(t) != before]
        results = tuple(leaves(result))
        self._outside |= {storage_of(tensor) for tensor in inputs} - self._inside
        self._inside |= {storage_of(tensor) for tensor in results} - self._outside
        if not results and not writes:
            return result
        self._calls.append(
            Call(
                function=func,
                args=args,
                kwargs=kwargs,
                results=results,
                autocast=Autocast.present(self._device_type),
                writes=tuple(writes),
                writes_outside=any(storage_of(tensor) in self._outside for tensor in writes),
                scale=_scale(args),
            )
        )
        if len(self._calls) > MOST_CALLS:
            self._recording = False
            self._forget()
            self._on_failure(
                f"more than {MOST_CALLS} torch calls were made after the model returned, without "
                "backward"
            )
        return result

    def _end(self, losses: Tensor | Sequence[Tensor]) -> None:
        self._backward_seen = True
        self._recording = False
        assert self._randomness is not None
        together = [losses] if isinstance(losses, Tensor) else list(losses)
        try:
            self._on_loss(find_program(together, self._calls, self._forwards, self._randomness))
        except NotReplayableError as error:
            self._on_failure(str(error))
        else:
            self._recording = True

    def _forget(self) -> None:
        self._calls, self._forwards = [], []
        self._inside, self._outside = set(), set()
        self._backward_seen = False


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _scale(args: tuple[Any, ...]) -> Tensor | None:
    """Return the factor if it is `torch.amp.GradScaler.scale` that made the call, else None."""
    # This function, _record, __torch_function__, and then whoever made the call.
    caller = sys._getframe(3)
    if caller.f_globals.get("__name__") != "torch.amp.grad_scaler" or len(args) != 2:
        return None
    return args[1] if isinstance(args[1], Tensor) and args[1].numel() == 1 else None


def _push_at_bottom(tape: LossTape) -> None:
    modes = _get_current_function_mode_stack()
    # The mode of torch.set_default_device insists on the very bottom; one that is entered as a
    # context, torch.device("cuda") too, insists on being the last.
    default = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    start = 1 if modes and modes[0] is default else 0
    _replace_stack([*modes[:start], tape, *modes[start:]])


def _replace_stack(modes: Sequence[TorchFunctionMode]) -> None:
    for _ in _get_current_function_mode_stack():
        _pop_mode()
    for mode in modes:
        _push_mode(mode)
