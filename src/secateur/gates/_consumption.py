"""The calls in which a weight multiplies activations: where its input and its positions are.

Letters: R masks, D entries of the first axis of an input, C channels, P positions on a weight's
axis, K places of a kernel, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_PATCH = 4608
"""Longest patch (channels times places of the kernel) whose covariance is worth its cost."""

_PATCH_NUMBERS = 1 << 25


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How a function is called, and along which axis of its weight it sums."""

    input: int
    weight: int
    axis: int
    channel: int


_LINEAR = _Form(input=0, weight=1, axis=1, channel=-1)
_CONVOLUTION = _Form(input=0, weight=1, axis=1, channel=1)
_TRANSPOSED = _Form(input=0, weight=1, axis=0, channel=1)
_PRODUCT = _Form(input=0, weight=1, axis=0, channel=-1)
_FORMS: Mapping[Callable[..., Any], _Form] = {
    F.linear: _LINEAR,
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _CONVOLUTION),
    **dict.fromkeys(
        (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), _TRANSPOSED
    ),
    **dict.fromkeys(
        (torch.matmul, torch.mm, Tensor.matmul, Tensor.__matmul__, Tensor.mm), _PRODUCT
    ),
    torch.addmm: _Form(input=1, weight=2, axis=0, channel=-1),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Consumption:
    """One call that sums over the positions of a weight's axis.

    Attributes:
        function: What was called.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        input: The activations that go in.
        weight: The weight.
        axis: The axis of the weight that is summed over.
        channel: The axis of the input that meets it.
        groups: Number of groups of a convolution.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    input: Tensor
    weight: Tensor
    axis: int
    channel: int
    groups: int

    def silenced(self, off_RP: Tensor, row_D: Tensor) -> Tensor:
        """Make the call again, with positions of the weight's axis silenced, others for each row.

        A position that is silenced in the input of a row is one whose slice of the weight is zero
        for that row: what is computed is what gates would compute.

        Args:
            off_RP: True where mask r silences position p.
            row_D: The mask that each entry of the input's first axis gets, int64.

        Returns:
            What the call returns then.
        """
        keep_RC = (~off_RP).to(self.input.dtype).repeat(1, self._repeats)
        shape = [len(row_D)] + [1] * (self.input.dim() - 1)
        shape[self.channel] = keep_RC.shape[1]
        silenced = self.input * keep_RC[row_D].view(shape)

        def stand_in(value: Any) -> Any:
            return silenced if value is self.input else value

        args = tuple(stand_in(value) for value in self.args)
        kwargs = {name: stand_in(value) for name, value in self.kwargs.items()}
        result: Tensor = self.function(*args, **kwargs)
        return result

    @property
    def has_covariance(self) -> bool:
        """Whether `gram` can be computed, at a cost that pays."""
        if self.channel == -1:
            return self.weight.dim() == 2 and self.weight.shape[self.axis] <= MAX_PATCH
        patch = self.weight[0].numel()
        known = self.axis == 1 and self.weight.dim() in (3, 4) and self.groups == 1
        return known and patch <= MAX_PATCH and _padding(self) is not None

    def gram(self, scale_O: Tensor, positions: Tensor) -> Tensor:
        """Return the inner products of what single positions add to the scaled output.

        ``G[p, q] = sum over rows, outputs and places of s_o^2 (w_op * x_p) (w_oq * x_q)``, from
        one covariance of patches (the input factor of a Kronecker-factored curvature). The damage
        of silencing a set is then the sum of G over the set, squared norms of the output apart.

        Args:
            scale_O: Factor of every output channel, as from a batch norm.
            positions: The positions P that are asked for, int64.

        Returns:
            ``[P, P]``, float64.
        """
        if self.channel == -1:
            patches = _wide(self.input.flatten(0, -2)[:, positions])
            by_output = self.weight if self.axis == 1 else self.weight.t()
            rows_OPK = by_output[:, positions, None]
            covariance = patches.t() @ patches
        else:
            rows_OPK = self.weight[:, positions].flatten(2)
            covariance = self._patch_covariance(positions)
        rows = (_wide(rows_OPK) * scale_O[:, None, None]).flatten(1)
        product = covariance.double() * (rows.t() @ rows).double()
        num, places = len(positions), rows_OPK.shape[2]
        return product.view(num, places, num, places).sum(dim=(1, 3))

    def _patch_covariance(self, positions: Tensor) -> Tensor:
        padding = _padding(self)
        assert padding is not None
        kernel = self.weight.shape[2:]
        stride, dilation = _setting(self, "stride", 1), _setting(self, "dilation", 1)
        images = _wide(self.input[:, positions])
        if len(kernel) == 1:
            images, kernel = images.unsqueeze(2), torch.Size((1, *kernel))
            stride, dilation, padding = (1, *stride), (1, *dilation), (0, *padding)
        length = len(positions) * kernel.numel()
        covariance = images.new_zeros(length, length)
        at_once = max(1, _PATCH_NUMBERS // max(1, images[0].numel() * kernel.numel()))
        for part in images.split(at_once):
            columns = F.unfold(part, tuple(kernel), dilation, padding, stride)
            columns = columns.transpose(0, 1).flatten(1)
            covariance.addmm_(columns, columns.t())
        return covariance

    @property
    def _repeats(self) -> int:
        return self.groups if self.channel == 1 and self.axis == 1 else 1


def consumption(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Consumption | None:
    """Recognise a call in which a weight multiplies activations.

    Args:
        function: What is called.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Returns:
        The call, or None if it is another one or has an input without rows.
    """
    form = _FORMS.get(function)
    if form is None:
        return None
    given = args[form.input] if len(args) > form.input else kwargs.get("input")
    weight = args[form.weight] if len(args) > form.weight else kwargs.get("weight")
    if not isinstance(given, Tensor) or not isinstance(weight, Tensor) or given.dim() < 2:
        return None
    # A convolution also takes an image without a batch axis.
    if form.channel == 1 and given.dim() != weight.dim():
        return None
    at = 6 if form is _CONVOLUTION else 7
    groups = args[at] if len(args) > at else kwargs.get("groups", 1)
    return Consumption(
        function=function,
        args=args,
        kwargs=kwargs,
        input=given,
        weight=weight,
        axis=form.axis,
        channel=form.channel,
        groups=groups if form.channel == 1 else 1,
    )


def _setting(call: Consumption, name: str, default: int) -> tuple[int, ...]:
    at = {"stride": 3, "dilation": 5}[name]
    value = call.args[at] if len(call.args) > at else call.kwargs.get(name, default)
    return _each(value, call.weight.dim() - 2)


def _padding(call: Consumption) -> tuple[int, ...] | None:
    """Return zeros added on each side, or None where the sides differ."""
    value = call.args[4] if len(call.args) > 4 else call.kwargs.get("padding", 0)
    if not isinstance(value, str):
        return _each(value, call.weight.dim() - 2)
    if value == "valid":
        return (0,) * (call.weight.dim() - 2)
    spans = [
        dilation * (size - 1)
        for size, dilation in zip(call.weight.shape[2:], _setting(call, "dilation", 1), strict=True)
    ]
    return None if any(span % 2 for span in spans) else tuple(span // 2 for span in spans)


def _each(value: Any, num_axes: int) -> tuple[int, ...]:
    return (value,) * num_axes if isinstance(value, int) else tuple(value)


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
