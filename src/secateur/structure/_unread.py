"""Numbers that data decide: a forward may keep and print them, and nothing may depend on them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NoReturn

from secateur.errors import TraceError
from secateur.structure._structure import Reason


class Unread(float):
    """What `Tensor.item` returns where the content of the tensor is not known.

    Such numbers are mostly written to a log. Arithmetic gives another one; whatever else is done
    with it ends the trace.
    """

    reason: Reason


def unread(reason: Reason) -> Unread:
    """Make such a number.

    Args:
        reason: Which operation it is the content of.

    Returns:
        The number.
    """
    number = Unread(math.nan)
    number.reason = reason
    return number


def refuse(reason: Reason) -> NoReturn:
    """End the trace of a forward that depends on data.

    Args:
        reason: Where it does.

    Raises:
        TraceError: Always.
    """
    raise TraceError(
        f"The forward cannot be traced: {reason}. Expected control flow that does not "
        "depend on the data: another branch could use other units. Decide before the call "
        "and pass the answer to the model as an argument, write the choice as torch.where, "
        "or trace the part of the model without it."
    )


def check_read(values: Iterable[Any]) -> None:
    """Refuse to compute tensors with such a number, with a `TraceError`.

    Args:
        values: Arguments of a function of PyTorch.
    """
    for value in values:
        if isinstance(value, Unread):
            refuse(value.reason)
        elif isinstance(value, (tuple, list)):
            check_read(value)
        elif isinstance(value, slice):
            check_read((value.start, value.stop, value.step))


def _refusing(self: Unread, *_: Any) -> NoReturn:
    refuse(self.reason)


def _unknown(self: Unread, *others: Any) -> Any:
    if not all(isinstance(other, (int, float)) for other in others):
        return NotImplemented
    return unread(self.reason)


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    setattr(Unread, f"__{_name}__", _unknown)
    setattr(Unread, f"__r{_name}__", _unknown)
for _name in ("neg", "pos", "abs", "round"):
    setattr(Unread, f"__{_name}__", _unknown)
for _name in (
    "bool", "eq", "ne", "lt", "le", "gt", "ge", "int", "float", "index", "trunc", "floor", "ceil",
):  # fmt: skip
    setattr(Unread, f"__{_name}__", _refusing)
