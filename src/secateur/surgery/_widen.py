"""`widen`: a builder of wider networks, where a builder takes a width."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from torch import nn

from secateur.errors import UsageError

WIDTHS = ("width", "width_mult", "width_multiplier", "width_factor", "width_per_group")
"""What builders call the number that all their widths follow."""

Model = TypeVar("Model", bound=nn.Module)


def widen(
    build: Callable[..., Model], factor: float, *, parameter: str | None = None
) -> Callable[..., Model]:
    """Return a builder whose networks are wider, as a start for a search for widths.

    Args:
        build: Builds a network; it must take a width that has a default.
        factor: What the width is multiplied by, > 0.
        parameter: The name of the width. None looks for ``width``, ``width_mult``,
            ``width_multiplier``, ``width_factor`` and ``width_per_group``, in this order.

    Returns:
        ``build`` with the larger width.

    Raises:
        UsageError: The builder takes no such width, or the factor is not positive.

    Example:
        >>> def build(width: int = 8):
        ...     return nn.Linear(4, width)
        >>> widen(build, 1.5)()
        Linear(in_features=4, out_features=12, bias=True)
    """
    if not 0 < factor < float("inf"):
        raise UsageError(f"factor={factor} must be a positive number, such as factor=1.5.")
    numbers = {
        name: entry.default
        for name, entry in inspect.signature(build).parameters.items()
        if isinstance(entry.default, int | float) and not isinstance(entry.default, bool)
    }
    wanted = WIDTHS if parameter is None else (parameter,)
    name = next((name for name in wanted if name in numbers), None)
    if name is None:
        raise UsageError(
            f"The builder takes no number called {' or '.join(wanted)} that has a default; "
            f"it has {', '.join(numbers) or 'none at all'}. Name its width with parameter=, or "
            "pass a function of the width: `widen(lambda width=1.0: Net(width), 1.5)`."
        )
    before = numbers[name]
    wider = max(1, round(before * factor)) if isinstance(before, int) else before * factor
    return partial(build, **{name: wider})
