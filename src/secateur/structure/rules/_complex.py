"""Complex numbers and spectra: pairs of real numbers, and transforms along some axes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from secateur.structure._coupling import reduced
from secateur.structure.rules._registry import Call, positive_axes, rule


@rule("view_as_real")
def as_pairs(call: Call) -> Tensor:
    """Put real and imaginary part on a last axis of two, which carries no units."""
    out = call.run()
    target = range(out.ndim - 1)
    return call.keep_name(call.put(out, [y.moved(target, out.ndim) for y in call.labels()]))


@rule("view_as_complex")
def from_pairs(call: Call) -> Tensor:
    """Read the last axis as real and imaginary part: units on it alone become fixed."""
    last = call.args[0].ndim - 1
    labels = reduced(call.tape, call.labels(), (last,), "is one part of a complex number")
    out = call.run()
    target = [*range(last), -1]
    return call.keep_name(call.put(out, [y.moved(target, last) for y in labels]))


@rule("_fft_r2c", "_fft_c2r", "_fft_c2c")
def fourier(call: Call) -> Any:
    """Transform along some axes: units on these are mixed, on others each keeps its own."""
    axes = positive_axes(call.args[1], call.args[0].ndim)
    labels = reduced(call.tape, call.labels(), axes, "is an axis of a Fourier transform")
    return call.put(call.run(), labels)
