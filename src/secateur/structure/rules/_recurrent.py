"""Recurrent layers and cells as one operation each, instead of thousands of unrolled ones.

A hidden unit is the same row of every gate, of every layer and of both directions: PyTorch's layers
have one hidden size. It leaves with the columns that read it, in the recurrent weights, in the next
layer and behind the last one.

Letters of the virtual frame: N rows (time steps times batch), G gates, H hidden units, K inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from secateur.structure._coupling import Operand, contract, couple
from secateur.structure._label import Ids, Label, axis_label
from secateur.structure.rules._registry import Call, empty_like_shape, info_of, rule

_N, _G, _H, _K = range(4)
_GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
_BLANK = ("aten.zeros", "aten.new_zeros", "aten.zeros_like")


@dataclass(frozen=True, slots=True)
class _Cell:
    """One direction of one layer.

    Attributes:
        weight_ih: Weight of the input, ``[G * H, K]``.
        weight_hh: Weight of the state, ``[G * H, P]``.
        biases: Both biases, or none.
        weight_hr: Projection of the hidden units to the state, ``[P, H]``, or None where P is H.
    """

    weight_ih: Tensor
    weight_hh: Tensor
    biases: tuple[Tensor, ...]
    weight_hr: Tensor | None = None

    @property
    def state_size(self) -> int:
        """Number of positions that are handed to the next time step."""
        return self.weight_hh.shape[1]


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def recurrent_layers(call: Call) -> tuple[Tensor, ...]:
    """Run several layers over all time steps, padded or packed, in one or both directions."""
    packed = call.func._overloadname == "data"
    x = call.args[0]
    initial, parameters, has_biases, num_layers = call.args[1 + packed : 5 + packed]
    directions = 2 if call.args[7 + packed] else 1
    initial = initial if isinstance(initial, (list, tuple)) else [initial]
    cells = _cells(parameters, num_layers * directions, has_biases)
    labels = _joined_along_others(call, call.labels(), x.ndim)
    states: list[tuple[Label, ...]] = []
    hidden: list[tuple[Label, ...]] = []
    width = x.shape[-1]
    for first in range(0, len(cells), directions):
        outputs = []
        for cell in cells[first : first + directions]:
            unit, state = _step(call, cell, labels, width, x.shape[:-1].numel())
            hidden.append(unit)
            states.append(state)
            outputs.append(state)
        labels = _side_by_side(outputs)
        width = cells[first].state_size * directions
    result = [call.put(empty_like_shape(x, (*x.shape[:-1], width)), _moved(labels, x.ndim))]
    carried = (states, hidden)[: len(initial)]
    for given, per_cell in zip(initial, carried, strict=True):
        _check_state(given, len(cells), cells[0], per_cell is hidden)
        shared = _shared(call, per_cell, given.shape[-1])
        shared = _started(call, given, shared)
        result.append(call.put(empty_like_shape(given, given.shape), _moved(shared, 3)))
    return tuple(result)


@rule("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def recurrent_cell(call: Call) -> Any:
    """Run one time step of one layer."""
    x, given = call.args[:2]
    given = given if isinstance(given, (list, tuple)) else [given]
    biases = tuple(b for b in (call.arg(4, "b_ih"), call.arg(5, "b_hh")) if b is not None)
    cell = _Cell(call.args[2], call.args[3], biases)
    labels = _joined_along_others(call, call.labels(), x.ndim)
    unit, _ = _step(call, cell, labels, x.shape[-1], x.shape[:-1].numel())
    outs = []
    for tensor in given:
        if tensor.shape[-1] != cell.state_size:
            raise RuntimeError(_misfit("a state", tensor.shape[-1], cell.state_size))
        unit = _started(call, tensor, unit)
        outs.append(call.put(empty_like_shape(tensor, tensor.shape), _moved(unit, tensor.ndim)))
    return tuple(outs) if len(outs) > 1 else outs[0]


def _cells(parameters: Sequence[Tensor], count: int, has_biases: bool) -> list[_Cell]:
    """Sort the flat list of parameters by layer and direction."""
    each = len(parameters) // count
    biases = 2 if has_biases else 0
    cells = []
    for start in range(0, len(parameters), each):
        own = parameters[start : start + each]
        projection = own[2 + biases] if each > 2 + biases else None
        cells.append(_Cell(own[0], own[1], tuple(own[2 : 2 + biases]), projection))
    return cells


def _joined_along_others(call: Call, labels: Iterable[Label], ndim: int) -> tuple[Label, ...]:
    """Bring the labels of an input to its last axis, as axis 0; time steps and batch are mixed."""
    result = []
    for label in labels:
        if ndim - 1 not in label.axes:
            call.tape.freeze([label], "lies along the time steps of a recurrent layer")
            continue
        left = call.tape.join_along(label, range(ndim - 1))
        result.append(axis_label(left.ids.ravel(), 0, 1))
    return tuple(result)


def _step(
    call: Call, cell: _Cell, labels: tuple[Label, ...], width: int, rows: int
) -> tuple[tuple[Label, ...], tuple[Label, ...]]:
    """Trace all time steps of one direction of one layer.

    Args:
        call: The call that is being traced.
        cell: Its parameters.
        labels: Labels of the input, of one axis.
        width: Size of that axis.
        rows: Number of time steps times batch.

    Returns:
        Labels of the hidden units and of the state that is handed on, of one axis each.

    Raises:
        RuntimeError: The input does not fit the weights.
    """
    gates = _GATES[call.func._schema.name.removeprefix("aten::").removesuffix("_cell")]
    size = cell.weight_hh.shape[0] // gates
    if cell.weight_ih.shape[1] != width:
        raise RuntimeError(_misfit("an input", width, cell.weight_ih.shape[1]))
    maker = cell.weight_hh if cell.weight_hr is None else cell.weight_hr
    made = [y.ids.ravel() for y in info_of(maker).labels if y.axes == {0}]
    state = tuple(axis_label(ids[: cell.state_size], 0, 1) for ids in made)
    shape = (1, gates, size, 1)
    summands = [
        Operand(_multiplied(call, labels, rows, cell.weight_ih, gates), shape),
        Operand(_multiplied(call, state, rows, cell.weight_hh, gates), shape),
        *(Operand(_gated(bias, gates), shape) for bias in cell.biases),
    ]
    coupled = couple(call.tape, summands)
    unit = tuple(_along(call.tape.join_along(y, (_G,))) for y in coupled)
    if cell.weight_hr is None:
        return unit, unit
    return unit, tuple(
        _along(y) for y in _multiplied(call, unit, rows, cell.weight_hr, 1) if _H in y.axes
    )


def _multiplied(
    call: Call, labels: tuple[Label, ...], rows: int, weight: Tensor, gates: int
) -> tuple[Label, ...]:
    """Multiply rows by a weight; the result's labels are on gates and hidden units."""
    left = Operand(tuple(y.moved((_K,), 4) for y in labels), (rows, 1, 1, weight.shape[1]))
    columns = tuple(
        axis_label(y.ids.ravel(), _K, 4) for y in info_of(weight).labels if y.axes == {1}
    )
    right = Operand(
        (*_gated(weight, gates), *columns),
        (1, gates, weight.shape[0] // gates, weight.shape[1]),
    )
    stored = 1 if info_of(weight).tensor is not None else None
    return contract(call.tape, left, right, frozenset((_K,)), stored)


def _gated(tensor: Tensor, gates: int) -> tuple[Label, ...]:
    """Split the labels of a tensor's rows into gates and hidden units."""
    return tuple(
        Label(y.ids.reshape(1, gates, -1, 1), frozenset((_G, _H)), _H)
        for y in info_of(tensor).labels
        if y.axes == {0}
    )


def _along(label: Label) -> Label:
    return axis_label(label.ids.ravel(), 0, 1)


def _moved(labels: Iterable[Label], ndim: int) -> list[Label]:
    return [y.moved((ndim - 1,), ndim) for y in labels]


def _side_by_side(outputs: Sequence[tuple[Label, ...]]) -> tuple[Label, ...]:
    """Concatenate what both directions hand on."""
    if not all(outputs):
        return ()
    pieces: list[Ids] = [labels[0].ids for labels in outputs]
    return (axis_label(np.concatenate(pieces), 0, 1),)


def _shared(call: Call, per_cell: Sequence[tuple[Label, ...]], size: int) -> tuple[Label, ...]:
    """Unite the units of all layers and directions: one tensor holds their states."""
    return couple(call.tape, [Operand(labels, (size,)) for labels in per_cell])


def _started(call: Call, given: Tensor, labels: tuple[Label, ...]) -> tuple[Label, ...]:
    """Couple hidden units with the state they start from; one of zeros is as long as they are."""
    known = _joined_along_others(call, info_of(given).labels, given.ndim)
    size = given.shape[-1]
    if known or not labels:
        return couple(call.tape, [Operand(labels, (size,)), Operand(known, (size,))])
    if not _is_blank(call, given):
        call.tape.freeze(labels, "starts from a state of fixed size")
        return ()
    if not _is_made_by_layer(call, given):
        call.tape.doubts.append(call.tape.nodes[-1])
    return labels


def _is_made_by_layer(call: Call, state: Tensor) -> bool:
    """Tell whether a standard layer made a state, rather than reordered one it was given."""
    made = info_of(state).node
    if made is None or made < 0:
        return False
    maker = call.tape.nodes[made]
    is_new = maker.operation in _BLANK
    return is_new and maker.call >= 0 and call.tape.calls[maker.call].standard


def _is_blank(call: Call, tensor: Tensor) -> bool:
    """Tell whether a tensor is all zeros."""
    info = info_of(tensor)
    if info.value is not None:
        return not bool(info.value.any())
    if info.node is None or info.node < 0:
        return False
    return call.tape.nodes[info.node].operation in _BLANK


def _check_state(given: Tensor, count: int, cell: _Cell, is_hidden: bool) -> None:
    size = cell.state_size
    if is_hidden and cell.weight_hr is not None:
        size = cell.weight_hr.shape[1]
    if given.shape[0] != count or given.shape[-1] != size:
        raise RuntimeError(_misfit("a state", given.shape[-1], size))


def _misfit(what: str, found: int, expected: int) -> str:
    return f"a recurrent layer got {what} of size {found}, expected {expected}"
