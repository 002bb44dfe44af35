"""Damage measured in a user's training: without leaving a trace, and the same on all processes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, distributed, nn

from secateur.gates import Ablation, Damage, DamageMeter
from secateur.methods import buffers_kept
from secateur.training._processes import communication_device, is_distributed
from secateur.training._surroundings import Autocast, Randomness


def look(
    meter: DamageMeter,
    ablation: Ablation,
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    num_samples: int,
) -> Damage:
    """Measure in a forward pass of its own, and leave buffers and generators as they are.

    It comes just before the user's, with the same generators, so that it sees the same dropout.

    Args:
        meter: Belongs to the model as it is now.
        ablation: What to measure.
        model: The model; hooks that count its calls must be mute.
        args: What the user calls the model with.
        kwargs: Its keyword arguments.
        num_samples: Number of samples in the batch.

    Returns:
        What was measured on this process.
    """
    device = next(model.parameters()).device
    # Autocast keeps nothing of what it casts here: it is cast without gradients.
    autocast = Autocast.present(device.type).again()
    with Randomness.present(device).again(), buffers_kept(model), autocast:
        return meter.measure(ablation, lambda: model(*args, **kwargs), num_samples)


def all_reduced(damage: Damage) -> Damage:
    """Add up what all processes measured with the same masks.

    Args:
        damage: What this process measured.

    Returns:
        The sums, the same everywhere: decisions that follow from them are, too.
    """
    if not is_distributed():
        return damage
    return replace(
        damage,
        change_VRF=_sum(damage.change_VRF),
        energy_RF=_sum(damage.energy_RF),
        grams={family: _sum(gram) for family, gram in damage.grams.items()},
        gram_energy={family: _sum(energy) for family, energy in damage.gram_energy.items()},
    )


def _sum(tensor: Tensor) -> Tensor:
    total = tensor.to(communication_device(), copy=True)
    distributed.all_reduce(total)
    return total.to(tensor.device)
