"""Reductions, softmax and scans over axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from secateur.structure._coupling import reduced
from secateur.structure._label import Label
from secateur.structure.rules._layout import part_of
from secateur.structure.rules._norm import mixed, note_statistics
from secateur.structure.rules._pointwise import pointwise
from secateur.structure.rules._registry import (
    Call,
    empty_like_shape,
    info_of,
    positive_axes,
    rule,
)


@rule("mean", "var", "std", "var_mean", "std_mean")
def statistic(call: Call) -> Any:
    """Average over axes: units on those axes share the statistic, which depends on their number."""
    axes, keepdim = _axes_and_keepdim(call)
    inner = mixed(call, call.labels(), axes)
    # The latter takes a mean of squares.
    names = (call.func._schema.name.removeprefix("aten::"), "rms_norm")
    if call.tape.function[0] in names:
        note_statistics(call, inner, axes)
    left = tuple(y for y in inner if not y.axes <= axes)
    return _finish(call, left, axes, keepdim)


@rule(
    "sum",
    "nansum",
    "prod",
    "amax",
    "amin",
    "all",
    "any",
    "logsumexp",
    "norm",
    "median",
    "count_nonzero",
)
def reduction(call: Call) -> Any:
    """Reduce over axes; units on those axes alone become fixed."""
    if len(call.args) > 1 and isinstance(call.args[1], Tensor):
        return pointwise(call)  # max(a, b) and min(a, b)
    axes, keepdim = _axes_and_keepdim(call)
    if _is_same_of_any_part(call):
        return _finish(call, [y for y in call.labels() if not y.axes & axes], axes, keepdim)
    message = "is reduced over, so the result depends on every unit"
    return _finish(call, reduced(call.tape, call.labels(), axes, message), axes, keepdim)


@rule("linalg_vector_norm")
def length(call: Call) -> Any:
    """Take the length of vectors: units on the reduced axes share it, as they share a mean."""
    axes, keepdim = _axes_and_keepdim(call)
    alone = [label for label in call.labels() if label.axes <= axes]
    is_known = call.tape.function[0] in ("normalize", "norm", "linalg_vector_norm")
    if not is_known or call.arg(1, "ord", 2) <= 0 or any(len(y.axes) > 1 for y in alone):
        return reduction(call)
    inner = mixed(call, call.labels(), axes)
    note_statistics(call, inner, axes)
    return _finish(call, [y for y in inner if not y.axes <= axes], axes, keepdim)


def _is_same_of_any_part(call: Call) -> bool:
    """Tell whether the question is whether all or any are so, where all or none are."""
    value = info_of(call.args[0]).value
    if value is None or call.func._schema.name not in {"aten::all", "aten::any"}:
        return False
    return value.numel() > 0 and bool((value == value.flatten()[0]).all())


def _axes_and_keepdim(call: Call) -> tuple[frozenset[int], bool]:
    """Read ``dim`` and ``keepdim`` by their names in the operation's schema."""
    x = call.args[0]
    given: dict[str, Any] = dict(call.kwargs)
    for argument, value in zip(call.func._schema.arguments, call.args, strict=False):
        given[argument.name] = value
    axes = given.get("dim")
    if isinstance(axes, bool):
        axes = None
    return positive_axes(axes, x.ndim), bool(given.get("keepdim"))


def _finish(call: Call, labels: Sequence[Label], axes: frozenset[int], keepdim: bool) -> Any:
    ndim = call.args[0].ndim
    kept = iter(range(ndim))
    target = [a if keepdim else (-1 if a in axes else next(kept)) for a in range(ndim)]
    size = ndim if keepdim else ndim - len(axes)
    moved = [y.moved(target, size) for y in labels]
    if call.func._schema.name == "aten::mean":
        return call.put(_mean(call.args[0], axes, keepdim), moved)
    out = call.run()
    for result in out if isinstance(out, tuple) else (out,):
        call.put(result, moved)
    return out


def _mean(x: Tensor, axes: frozenset[int], keepdim: bool) -> Tensor:
    """Make the result of a mean by hand; its meta kernel is slow Python code."""
    sizes = [1 if a in axes else n for a, n in enumerate(x.shape)]
    return empty_like_shape(
        x, sizes if keepdim else [sizes[a] for a in range(x.ndim) if a not in axes]
    )


@rule("_log_softmax", "log_softmax", "cumprod", "logcumsumexp", "sort", "argsort")
def along_axis(call: Call) -> Any:
    """Mix all positions of one axis and keep the axis."""
    x = call.args[0]
    default = -1 if len(call.args) < 2 else call.args[1]
    axis = default if isinstance(default, int) else -1
    message = "is normalised or ordered along its own axis"
    labels = reduced(call.tape, call.labels(), positive_axes(axis, x.ndim), message)
    out = call.run()
    for result in out if isinstance(out, tuple) else (out,):
        call.put(result, labels)
    return out


@rule("glu")
def glu(call: Call) -> Tensor:
    """Gate one half of an axis by the other: a split and a product."""
    x = call.args[0]
    axis = call.arg(1, "dim", -1) % x.ndim
    labels = []
    for label in call.labels():
        if axis not in label.axes:
            labels.append(label)
            continue
        halves = [part_of(call, label, axis, 2, k) for k in range(2)]
        call.tape.join(halves[0].ids, halves[1].ids)
        labels.append(halves[0])
    return call.put(call.run(), labels)
