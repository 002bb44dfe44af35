"""The scores by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from secateur.errors import UsageError
from secateur.methods.scores._bn_scale import BNScale
from secateur.methods.scores._magnitude import Magnitude
from secateur.methods.scores._oracle import Oracle
from secateur.methods.scores._protocol import Score, WeightScore
from secateur.methods.scores._random import Random
from secateur.methods.scores._snip import SNIP
from secateur.methods.scores._synflow import SynFlow
from secateur.methods.scores._taylor import Taylor, TaylorWeights
from secateur.methods.scores._taylor_second_order import TaylorSecondOrder

_Entry = TypeVar("_Entry")

SCORES: Mapping[str, Callable[[], Score]] = {
    "bn-scale": BNScale,
    "magnitude": Magnitude,
    "magnitude-l1": partial(Magnitude, power=1),
    "oracle": Oracle,
    "random": Random,
    "snip": SNIP,
    "synflow": SynFlow,
    "taylor": Taylor,
    "taylor-second-order": TaylorSecondOrder,
    "taylor-weights": TaylorWeights,
}
"""Scores of units."""

WEIGHT_SCORES: Mapping[str, Callable[[], WeightScore]] = {
    "magnitude": partial(Magnitude, power=1),
    "random": Random,
    "snip": SNIP,
    "synflow": SynFlow,
    "taylor": Taylor,
}
"""Scores of single weights."""


def score_named(name: str) -> Score:
    """Make a score of units.

    Args:
        name: A key of `SCORES`.

    Returns:
        The score with its published settings.

    Raises:
        UsageError: No score of units has this name.
    """
    return _known(name, "units", SCORES)()


def weight_score_named(name: str) -> WeightScore:
    """Make a score of single weights.

    Args:
        name: A key of `WEIGHT_SCORES`.

    Returns:
        The score with its published settings.

    Raises:
        UsageError: No score of weights has this name.
    """
    return _known(name, "single weights", WEIGHT_SCORES)()


def _known(name: str, of_what: str, entries: Mapping[str, _Entry]) -> _Entry:
    if name in entries:
        return entries[name]
    names = sorted(entries)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise UsageError(f"No score of {of_what} is called {name!r}: use {', '.join(names)}.{hint}")
