"""What a method that works during training and a training loop say to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from secateur.errors import UsageError
from secateur.gates import Ablation, Compactors, Damage
from secateur.structure import Decision, Live, Structure

State = dict[str, Tensor | float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draw:
    """Gates for one step.

    Attributes:
        units_U: True where a unit is on, bool ``[U]``, families one after another.
        layers_L: True where a layer is on, bool ``[L]``.
    """

    units_U: Tensor
    layers_L: Tensor


class Search(Protocol):
    """One run of a method.

    A step goes: `draw`, forward and backward under these gates, `probe` with its extra forward and
    `observe_probe`, `observe`, the optimizer's update, `decide`, `should_cut`, and after surgery
    `removed`. `observe_probe` may also come after `observe`.

    Attributes:
        settled: True once the method has taken its last decision; every later `draw` is None.
    """

    settled: bool

    def draw(self) -> Draw | None:
        """Return the gates of the next optimizer step; None means everything on."""
        ...

    def observe(
        self,
        unit_gradient_U: Tensor,
        layer_gradient_L: Tensor,
        draw: Draw | None,
        batch_size: int,
    ) -> None:
        """Take in what a step measured.

        Args:
            unit_gradient_U: Derivative of the loss by every unit's gate, ``[U]``.
            layer_gradient_L: Derivative of the loss by every layer's gate, ``[L]``.
            draw: The gates under which it was measured.
            batch_size: Number of samples over which the loss was averaged.
        """
        ...

    def probe(self) -> Draw | None:
        """Return what to switch off, on top of the current draw, in one extra forward pass.

        Returns:
            Gates in which False marks what the extra forward switches off, or None for no probe.
        """
        ...

    def observe_probe(self, probe: Draw, rise: float) -> None:
        """Take in what a probe measured.

        Args:
            probe: What was switched off.
            rise: Loss with it off minus loss with it on, on the same batch, in nats.
        """
        ...

    def decide(self) -> Decision:
        """Return everything that may go now and has not gone yet; empty for nothing."""
        ...

    def should_cut(self, live: Live, pending: Decision) -> bool:
        """Say whether carrying out a decision pays now.

        Args:
            live: What is left in the model.
            pending: What may go.

        Returns:
            True where surgery should happen now.
        """
        ...

    def removed(self, decision: Decision) -> None:
        """Take note that surgery carried out a decision."""
        ...

    def record(self) -> dict[str, object]:
        """Return what is worth writing down about the current step, as plain numbers."""
        ...

    def state_dict(self) -> State:
        """Return everything a resumed run needs, as tensors and numbers."""
        ...

    def load_state_dict(self, state: State) -> None:
        """Continue from what `state_dict` returned."""
        ...


@runtime_checkable
class Ablating(Protocol):
    """What a search also has if it wants to know what silencing units does to their consumers.

    Before each training forward pass comes `ablate`; after the backward pass and before `observe`
    comes `observe_damage`, once for every answer of `ablate` that was not None.
    """

    def ablate(self) -> Ablation | None:
        """Return what to measure on the batch of the next forward pass; None for nothing."""
        ...

    def observe_damage(self, ablation: Ablation, damage: Damage) -> None:
        """Take in what was measured.

        Args:
            ablation: What was asked.
            damage: What was measured, the same on all processes.
        """
        ...


@runtime_checkable
class Compacting(Protocol):
    """What a search also has if it trains compactors.

    `equip` comes once, before anything else. With every update of the optimizer that was observed,
    after it and before `decide`, comes `train_compactors`.
    """

    def equip(self, compactors: Compactors) -> None:
        """Take over the compactors of the model.

        Args:
            compactors: All of them, each the identity.
        """
        ...

    def train_compactors(self, rates: Mapping[int, float]) -> None:
        """Update every compactor by its gradient.

        Args:
            rates: Family to the learning rate of what reads it.
        """
        ...


class Method(Protocol):
    """Settings from which a `Search` can begin."""

    def begin(
        self,
        structure: Structure,
        *,
        total_steps: int,
        steps_per_epoch: int | None,
        generator: torch.Generator,
        device: torch.device | str,
    ) -> Search:
        """Start a run.

        Args:
            structure: What the model is made of.
            total_steps: Optimizer steps of the whole training.
            steps_per_epoch: Optimizer steps of an epoch; None where there are no epochs.
            generator: The only source of randomness, used for nothing else.
            device: Where the statistics live.

        Returns:
            The run, at its first step.
        """
        ...


def tensor_of(state: State, name: str, like: Tensor) -> Tensor:
    """Read a tensor out of a saved state.

    Args:
        state: What `Search.state_dict` returned.
        name: Its key.
        like: The tensor it replaces.

    Returns:
        A copy of the right type, on the device of the one it replaces.

    Raises:
        UsageError: The state belongs to another structure.
    """
    value = torch.as_tensor(state[name])
    if value.shape != like.shape:
        raise UsageError(
            f"the saved state has {name} of shape {list(value.shape)}, and this model needs "
            f"{list(like.shape)}. Resume with the model and settings the run was started with."
        )
    return value.to(like, copy=True)
