"""The calls that lead from a model's output to the loss, to be run again on another output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from secateur.training._surroundings import Autocast, Randomness


class NotReplayableError(Exception):
    """The recorded calls do not define the loss as a function of the model's output."""


class Forward:
    """One call of the model, with what is needed to make it again.

    Args:
        args: Positional arguments.
        kwargs: Keyword arguments.
        randomness: Generators before the call.
        autocast: Autocast during the call.
    """

    def __init__(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        randomness: Randomness,
        autocast: Autocast,
    ) -> None:
        self.args = args
        self.kwargs = kwargs
        self.randomness = randomness
        self.autocast = autocast
        self.returned: tuple[Tensor, ...] = ()
        self.returned_off: tuple[Tensor, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Call:
    """One recorded call.

    Attributes:
        function: What was called.
        args: Positional arguments.
        kwargs: Keyword arguments.
        results: The tensors it returned.
        autocast: Autocast during the call.
        writes: The tensors it wrote into.
        writes_outside: Whether one of them is neither the model's output nor made by a call.
        scale: The factor by which a GradScaler multiplied, if that is what the call was.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[Tensor, ...]
    autocast: Autocast
    writes: tuple[Tensor, ...] = ()
    writes_outside: bool = False
    scale: Tensor | None = None

    @property
    def name(self) -> str:
        """Name of the function."""
        return str(getattr(self.function, "__name__", self.function))

    def inputs(self) -> list[Tensor]:
        """Return every tensor among the arguments."""
        return leaves((self.args, self.kwargs))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LossProgram:
    """The loss as a function of what the model returned.

    Attributes:
        losses: What the user called backward on; the loss is their sum.
        calls: In the order they were made.
        forwards: The model calls whose outputs the loss depends on.
        randomness: Generators after the model's call.
    """

    losses: tuple[Tensor, ...]
    calls: tuple[Call, ...]
    forwards: tuple[Forward, ...]
    randomness: Randomness

    @property
    def writes(self) -> bool:
        """Whether running it changes tensors it did not make."""
        return any(call.writes for call in self.calls)

    def recorded(self) -> Tensor:
        """Return the loss the user saw, scalar, without the factor of a GradScaler."""
        return self._loss({})

    def replay(self, outputs: Mapping[int, Tensor]) -> Tensor:
        """Compute the loss of other outputs.

        Args:
            outputs: What stands in for each tensor that the model returned, by its id.

        Returns:
            The loss, scalar, without the factor of a GradScaler.

        Raises:
            NotReplayableError: A call does not accept what it would get.
        """
        present = dict(outputs)
        with torch.no_grad(), self.randomness.again():
            for call in self.calls:
                try:
                    _run(call, present)
                except (RuntimeError, ValueError, TypeError, IndexError) as error:
                    message = f"running {call.name} again failed: {error}"
                    raise NotReplayableError(message) from error
        return self._loss(present)

    def _loss(self, present: Mapping[int, Tensor]) -> Tensor:
        losses = [present.get(id(loss), loss) for loss in self.losses]
        total = torch.stack([loss.detach().float().reshape(()) for loss in losses]).sum()
        # One scaler has one factor, however many losses it multiplied.
        scales = [call.scale for call in self.calls if call.scale is not None]
        return total / scales[0].to(total) if scales else total


def find_program(
    losses: Sequence[Tensor],
    calls: Sequence[Call],
    forwards: Sequence[Forward],
    randomness: Randomness,
) -> LossProgram:
    """Find the calls that a loss depends on.

    Args:
        losses: What backward was called on.
        calls: Everything recorded since the model's first call.
        forwards: The model's calls.
        randomness: Generators after the model's call.

    Returns:
        The program.

    Raises:
        NotReplayableError: The loss is not a scalar, does not depend on what the model returned,
            or depends on a result that was not recorded.
    """
    if any(loss.numel() != 1 for loss in losses):
        raise NotReplayableError("backward was called on a tensor that is not a scalar")
    needed = {id(loss): loss for loss in losses}
    storages = {storage_of(loss) for loss in losses}
    kept: list[Call] = []
    for call in reversed(calls):
        made = any(id(result) in needed for result in call.results)
        if not made and not any(storage_of(written) in storages for written in call.writes):
            continue
        kept.append(call)
        for tensor in call.inputs():
            needed[id(tensor)] = tensor
            storages.add(storage_of(tensor))
    used = tuple(f for f in forwards if any(id(tensor) in needed for tensor in f.returned))
    _refuse(needed, kept, used)
    return LossProgram(
        losses=tuple(losses),
        calls=tuple(reversed(kept)),
        forwards=used,
        randomness=randomness,
    )


def _refuse(needed: Mapping[int, Tensor], kept: Sequence[Call], used: Sequence[Forward]) -> None:
    if not used:
        raise NotReplayableError("the loss does not depend on what the model returned")
    known = {id(tensor) for forward in used for tensor in forward.returned}
    known |= {id(result) for call in kept for result in call.results}
    if any(number not in known and tensor.grad_fn is not None for number, tensor in needed.items()):
        raise NotReplayableError(
            "the loss uses a result that was computed inside the model or in compiled code and "
            "is not part of what the model returned"
        )
    outside = next((call.name for call in kept if call.writes_outside), None)
    if outside is not None:
        raise NotReplayableError(f"{outside} writes into a tensor that outlives the step")


def _run(call: Call, present: dict[int, Tensor]) -> None:
    def stand_in(value: Any) -> Any:
        return present.get(id(value), value) if isinstance(value, Tensor) else value

    args, kwargs = tree_map(stand_in, (call.args, call.kwargs))
    with call.autocast.again():
        results = leaves(call.function(*args, **kwargs))
    if len(results) != len(call.results):
        raise ValueError(f"{len(results)} tensors came back instead of {len(call.results)}")
    present.update({id(old): new for old, new in zip(call.results, results, strict=True)})


def leaves(value: object) -> list[Tensor]:
    """Return the tensors that a replay can exchange: among arguments, and in containers there.

    Fields of objects do not count: `tree_map` does not reach them.
    """
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def storage_of(tensor: Tensor) -> int:
    """Return a number that tensors on the same memory share."""
    if tensor.layout is not torch.strided:
        return id(tensor)
    return int(tensor.untyped_storage()._cdata)
