"""Weights that are computed from parameters before they are used."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from secateur.structure.rules._registry import Call, empty_like, empty_like_shape, info_of, rule

_NORMED = "enters the norm of a weight normalisation"


@rule("_weight_norm", "_weight_norm_interface")
def weight_norm(call: Call) -> Any:
    """Give each slice along one axis the length that a second parameter says.

    On that axis both parameters lose the slice, and a length of zero silences it. Slices along the
    other axes enter the norm: without them the rest of the weight grows.

    Args:
        call: The call that is being traced.

    Returns:
        The weight, and for the fused kernel the norms.
    """
    direction, length = call.args[:2]
    axis = call.arg(2, "dim", 0)
    lengths = [y for y in info_of(length).labels if y.axes == {axis}]
    call.tape.freeze(
        [y for y in info_of(length).labels if y.axes != {axis}], "is a single length for all units"
    )
    labels = []
    for label in info_of(direction).labels:
        if label.axes == {axis} and lengths:
            call.tape.join(label.ids, lengths[0].ids)
            labels.append(lengths[0])
            continue
        call.tape.mark_inexact(label, _NORMED)
        call.tape.consumed.append(label.ids.ravel())
        labels.append(label)
    out = call.put(empty_like(direction), labels)
    info_of(out).tensor = info_of(direction).tensor
    if call.func._schema.name == "aten::_weight_norm":
        return out
    return out, empty_like_shape(length, length.shape)


@rule("dot", "vdot")
def scalar_product(call: Call) -> Tensor:
    """Multiply two vectors to one number, as for the spectral norm of a weight."""
    for position in range(2):
        call.tape.freeze(
            call.labels(position), "is summed to one number, as for a spectral norm, with others"
        )
    return call.put(call.run(), ())
