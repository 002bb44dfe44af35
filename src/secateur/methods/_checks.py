"""What several methods refuse: settings out of range, targets and models with nothing to gain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from secateur.errors import NothingRemovableError, UsageError
from secateur.structure import Structure


def check_share(
    name: str,
    value: float | None,
    meaning: str = "a share",
    *,
    example: float = 0.5,
    with_zero: bool = False,
    with_one: bool = False,
) -> None:
    """Refuse a setting that is not between 0 and 1.

    Args:
        name: The setting.
        value: What it was set to; None is let through.
        meaning: What it is.
        example: A common value.
        with_zero: Whether it may be 0.
        with_one: Whether it may be 1.

    Raises:
        UsageError: It is outside.
    """
    if value is None or 0 < value < 1 or (with_zero and value == 0) or (with_one and value == 1):
        return
    low, high = "[" if with_zero else "(", "]" if with_one else ")"
    raise UsageError(
        f"{name}={value} is outside {low}0, 1{high}. Give {meaning}, such as {name}={example}."
    )


def check_settle_at(value: float) -> None:
    """Refuse a time of settling outside the training.

    Args:
        value: Share of the training.

    Raises:
        UsageError: It is outside.
    """
    meaning = "the share of the training after which the network is final"
    check_share("settle_at", value, meaning, example=0.7, with_one=True)


def check_at_least(name: str, value: int | None, least: int) -> None:
    """Refuse a number that is too small.

    Args:
        name: The setting.
        value: What it was set to; None is let through.
        least: The smallest value.

    Raises:
        UsageError: It is smaller.
    """
    if value is not None and value < least:
        raise UsageError(f"{name}={value} is too few: give at least {name}={least}.")


def check_reachable(
    structure: Structure, target_macs: float, widths: Sequence[int], which: str
) -> None:
    """Refuse a target below the smallest network there is.

    Args:
        structure: What the model is made of.
        target_macs: Share of the MACs to stop at.
        widths: Units of every family in the smallest network.
        which: How it comes about, as in "with 1 unit(s) in every family".

    Raises:
        UsageError: It cannot be reached.
    """
    macs = structure.cost.macs
    least = macs.value(torch.tensor(widths, dtype=torch.int64)) / macs.value()
    if least > target_macs:
        raise UsageError(
            f"target_macs={target_macs} cannot be reached: with {which} this network still has "
            f"{least:.3g} of its MACs. Choose a larger target."
        )


def check_removable(model: nn.Module, structure: Structure, *, with_layers: bool) -> None:
    """Refuse a model that cannot become smaller.

    Args:
        model: The model.
        structure: What it is made of.
        with_layers: Whether layers could go, too.

    Raises:
        NothingRemovableError: Nothing can be removed.
    """
    if any(family.num_units > family.fewest for family in structure.families):
        return
    if with_layers and structure.num_layers:
        return
    what, layers = ("Nothing in", " and no removable layer") if with_layers else ("No unit of", "")
    reasons = "".join(f"\n- {fixed.what}: {fixed.reason}" for fixed in structure.fixed[:5])
    raise NothingRemovableError(
        f"{what} this {type(model).__name__} can be removed: it has no family of two or more units"
        f"{layers}. `print(secateur.trace(model, example_inputs))` shows what is fixed and why."
        f"{reasons}"
    )
