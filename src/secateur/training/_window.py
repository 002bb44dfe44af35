"""What belongs to one optimizer step: its gates, its batches, and the loss it measures on the side.

A window opens at the first training forward after an update and closes at the next update. Forward
passes that accumulate gradients share it, and so does whatever follows a skipped update.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn

from secateur.gates import Ablation, Damage, Gates
from secateur.methods import Draw, buffers_kept
from secateur.structure import tensors_in
from secateur.training._loss_program import (
    Forward,
    LossProgram,
    NotReplayableError,
    leaves,
)
from secateur.training._processes import communication_device, is_distributed


class Window:
    """One optimizer step.

    Args:
        draw: Gates that are in force; None means everything is on.
        probe: What the extra forward pass of this step switches off on top, or None.
    """

    def __init__(self, draw: Draw | None, probe: Draw | None) -> None:
        self.draw = draw
        self.probe = probe
        self.num_samples = 0
        self.rise: Tensor | None = None
        self.forward: Forward | None = None
        self.damages: list[tuple[Ablation, Damage]] = []

    def close_(self, gates: Gates) -> None:
        """Close the gates for a forward pass, if any is off.

        Args:
            gates: The model's gates.
        """
        if self.draw is not None and not gates.closed:
            gates.close_(self.draw.units_U, self.draw.layers_L)

    def count(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Add the samples of one forward pass: the first axis of its first tensor.

        Args:
            args: Positional arguments of the model.
            kwargs: Keyword arguments of the model.
        """
        self.num_samples += _num_samples(args, kwargs)

    def restart(self) -> None:
        """Forget the batches of a step that was skipped."""
        self.num_samples = 0
        self.rise = None
        self.damages = []

    def measure(self, program: LossProgram, model: nn.Module, gates: Gates) -> int:
        """Add the rise of one loss: with the probe's structures off, minus as the user saw it.

        The losses of several backward passes of a step add up, as their gradients do.

        Args:
            program: How the loss follows from the model's output.
            model: The model; its hooks must be mute.
            gates: Its gates, as they were in the user's forward pass.

        Returns:
            Number of samples that went through the model once more.

        Raises:
            NotReplayableError: The extra forward pass returned something else.
        """
        assert self.probe is not None
        if self.rise is None:
            _check(program)
        units_U, layers_L = self.probe.units_U, self.probe.layers_L
        if self.draw is not None:
            units_U, layers_L = units_U & self.draw.units_U, layers_L & self.draw.layers_L
        with gates.also_closed(units_U, layers_L), buffers_kept(model):
            outputs: dict[int, Tensor] = {}
            again = [forward for forward in program.forwards if forward.returned_off is None]
            for forward in program.forwards:
                off = _forward_again(forward, model)
                outputs |= {id(t): other for t, other in zip(forward.returned, off, strict=True)}
            rise = program.replay(outputs) - program.recorded()
        self.rise = rise if self.rise is None else self.rise + rise
        return sum(_num_samples(forward.args, forward.kwargs) for forward in again)

    def measured(self) -> float | None:
        """Return the rise in nats, averaged over all processes; None if nothing was measured."""
        if self.probe is None:
            return None
        rise = torch.tensor([0.0, 0.0]) if self.rise is None else _counted(self.rise)
        if is_distributed():
            # Every process probes in the same steps. Decisions depend on the figure, so that it
            # must be the same everywhere.
            rise = rise.to(communication_device())
            distributed.all_reduce(rise)
        total, count = rise.tolist()
        return total / count if count else None


def _num_samples(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    return next((len(tensor) for tensor in leaves((args, kwargs)) if tensor.ndim), 1)


def _counted(rise: Tensor) -> Tensor:
    return torch.stack([rise, torch.ones_like(rise)])


def _forward_again(forward: Forward, model: nn.Module) -> tuple[Tensor, ...]:
    if forward.returned_off is None:
        with torch.no_grad(), forward.randomness.again(), forward.autocast.again():
            forward.returned_off = tuple(tensors_in(model(*forward.args, **forward.kwargs)))
        if len(forward.returned_off) != len(forward.returned):
            raise NotReplayableError(
                f"the model returned {len(forward.returned)} tensors, and "
                f"{len(forward.returned_off)} when it was called again"
            )
    return forward.returned_off


def _check(program: LossProgram) -> None:
    """Run the program on the user's own output: it must give the user's own loss."""
    # A program that writes into the output cannot run on it twice.
    if program.writes:
        return
    again, recorded = program.replay({}), program.recorded()
    if not torch.isclose(again, recorded, rtol=1e-3, atol=1e-5, equal_nan=True):
        raise NotReplayableError(
            f"the recorded calls give a loss of {float(again):.6g}, the user's was "
            f"{float(recorded):.6g}"
        )
