"""Watches one forward pass call by call, and evaluates consumers a second time.

Letters: U units over all families, F families, V evaluations of each sample, R masks, D entries
of the first axis of an input, P positions on an axis, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from secateur.gates._ablation import Ablation, Damage
from secateur.gates._consumption import Consumption, consumption
from secateur.gates._fused import FusedCall, Silence, first_tensor, fused
from secateur.gates._steady_norms import held_scale, is_norm
from secateur.structure import Structure, tensors_in

_ACTIVATIONS = frozenset((
    "celu", "celu_", "clamp", "clamp_", "elu", "elu_", "gelu", "hardsigmoid", "hardswish",
    "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_", "logsigmoid", "mish", "prelu", "relu",
    "relu6", "relu_", "selu", "selu_", "sigmoid", "sigmoid_", "silu", "softplus", "softsign",
    "tanh", "tanh_", "threshold", "threshold_",
))  # fmt: skip
"""Element-wise functions that count as part of the consumer when they directly follow it."""

_LOOKS = frozenset((
    "__get__", "__len__", "dim", "element_size", "get_device", "is_complex", "is_contiguous",
    "is_floating_point", "ndimension", "nelement", "numel", "size", "stride", "type",
))  # fmt: skip
"""What only looks at a tensor."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FamilySlot:
    """The positions of one family on one axis of a parameter, and the units they belong to."""

    family: int
    num_units: int
    axis: int
    position: Tensor
    unit: Tensor
    first: int
    size: int


@dataclass(slots=True, eq=False)
class _Pending:
    """An output on the base path, and what it would be with units of a family silenced."""

    base: Tensor
    call: Consumption | None
    silenced: dict[tuple[int, int], Tensor]
    exact: list[FamilySlot]
    scale_C: Tensor | None = None
    is_linear: bool = True


@dataclass(slots=True, eq=False)
class _Account:
    """What one family has shown so far."""

    change_VR: Tensor
    energy_R: Tensor
    seen: set[int] = field(default_factory=set)
    is_quadratic: bool = True
    gram: Tensor | None = None
    gram_energy: Tensor | None = None


class Recorder(TorchFunctionMode):
    """Watches one forward pass call by call.

    Args:
        slots: Where families are consumed, by the number of the parameter object.
        ablation: What to measure.
        num_samples: Number of samples in the batch.
        num_families: F.
        together: Families with a consumer inside a fused call: the whole batch gets their first
            mask. Families that turn out to be such are added, for the next forward pass.
    """

    def __init__(
        self,
        slots: Mapping[int, list[FamilySlot]],
        ablation: Ablation,
        num_samples: int,
        num_families: int,
        together: set[int],
    ) -> None:
        super().__init__()
        self._slots = slots
        self._ablation = ablation
        self._num_families = num_families
        self._together = together
        self._late: set[int] = set()
        self._num_masks = max(1, min(ablation.off_VRU.shape[1], num_samples))
        self._off: Tensor | None = None
        self._pending: dict[int, _Pending] = {}
        self._accounts: dict[int, _Account] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Make one call; see `torch.overrides.TorchFunctionMode`."""
        given = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in _LOOKS:
            return func(*args, **given)
        if self._pending:
            followed = self._follow(func, name, args, given)
            if followed is not None:
                return followed
            for tensor in tensors_in((args, given)):
                self._settle(tensor)
        inside = fused(func, args, given)
        result = func(*args, **given)
        if inside is not None:
            self._open_fused(inside, first_tensor(result))
            return result
        call = consumption(func, args, given)
        if call is not None and isinstance(result, Tensor):
            self._open(call, result)
        return result

    def finish(self) -> None:
        """Compare what nothing came after."""
        for pending in list(self._pending.values()):
            self._settle(pending.base)

    def damage(self, needed: list[set[int]], structure: Structure) -> Damage:
        """Return what was measured.

        Args:
            needed: The parameters that consume each family.
            structure: What the model is made of.

        Returns:
            Damage of the families all of whose consumers were met.
        """
        whole = {
            family: account
            for family, account in self._accounts.items()
            if account.seen >= needed[family] and family not in self._late
        }
        device = next((a.energy_R.device for a in whole.values()), torch.device("cpu"))
        shape = (*self._ablation.off_VRU.shape[:2], self._num_families)
        change_VRF = torch.zeros(shape, dtype=torch.float64, device=device)
        energy_RF = torch.zeros_like(change_VRF[0])
        for family in self._ablation.sampled & whole.keys():
            change_VRF[:, : self._num_masks, family] = whole[family].change_VR
            energy_RF[: self._num_masks, family] = whole[family].energy_R
        grams, gram_energy = {}, {}
        for family in sorted(self._ablation.exact):
            account = whole.get(family)
            size = structure.families[family].num_units
            gram = torch.zeros(size, size, dtype=torch.float64, device=device)
            energy = torch.zeros((), dtype=torch.float64, device=device)
            if account is not None and account.gram is not None and account.is_quadratic:
                gram = account.gram
                energy = account.gram_energy if account.gram_energy is not None else energy
            grams[family], gram_energy[family] = gram, energy
        return Damage(
            change_VRF=change_VRF,
            energy_RF=energy_RF,
            grams=grams,
            gram_energy=gram_energy,
            quadratic=frozenset(f for f, account in whole.items() if account.is_quadratic),
        )

    def _open(self, call: Consumption, base: Tensor) -> None:
        """Make the second evaluations of a consumer."""
        parameter = self._behind(call.weight)
        if parameter is None:
            return
        wanted = [
            slot
            for slot in self._wanted(parameter)
            if _runs_along(parameter, slot.axis, call.weight, call.axis)
        ]
        rows = len(call.input)
        if not wanted or rows < self._num_masks:
            return
        row_D = self._rows(rows).to(base.device)
        pending = _Pending(base, call, {}, [])
        off: dict[int, Tensor] = {}
        # Inner products across two slots of one family would be missing.
        pending.is_linear = len({slot.family for slot in wanted}) == len(wanted)
        for slot in wanted:
            self._account(slot.family, base.device).seen.add(id(parameter))
            if slot.family in self._ablation.exact:
                pending.exact.append(slot)
            else:
                off_VRP = self._off_at(slot, base.device)
                before = off.get(slot.family)
                off[slot.family] = off_VRP if before is None else before | off_VRP
        for family, off_VRP in off.items():
            masks_D = torch.zeros_like(row_D) if family in self._together else row_D
            for variant, off_RP in enumerate(off_VRP):
                pending.silenced[family, variant] = call.silenced(off_RP, masks_D)
        self._pending[id(base)] = pending

    def _open_fused(self, call: FusedCall, base: Tensor) -> None:
        """Make the second evaluations of a call with consumers inside, one mask for all samples."""
        weights = {id(tensor): tensor for tensor in call.tensors if id(tensor) in self._slots}
        wanted = [(weight, slot) for weight in weights.values() for slot in self._wanted(weight)]
        if not wanted:
            return
        pending = _Pending(base, None, {}, [], is_linear=False)
        silences: dict[tuple[int, int], list[Silence]] = {}
        for weight, slot in wanted:
            if slot.family not in self._together:
                self._together.add(slot.family)
                # Consumers before this one had other masks.
                self._late |= {slot.family} & self._accounts.keys()
            self._account(slot.family, base.device).seen.add(id(weight))
            if slot.family in self._ablation.exact:
                pending.exact.append(slot)
                continue
            for variant, off_RP in enumerate(self._off_at(slot, base.device)):
                silence = (weight, slot.axis, off_RP[0].nonzero().flatten())
                silences.setdefault((slot.family, variant), []).append(silence)
        for key, together in silences.items():
            pending.silenced[key] = call.silenced(together)
        self._pending[id(base)] = pending

    def _behind(self, weight: Tensor) -> Tensor | None:
        """Return the parameter with slots that a weight is, or is a view of."""
        for tensor in (weight, weight._base):
            if tensor is not None and id(tensor) in self._slots:
                return tensor
        return None

    def _wanted(self, parameter: Tensor) -> list[FamilySlot]:
        asked = self._ablation.sampled | self._ablation.exact
        return [slot for slot in self._slots[id(parameter)] if slot.family in asked]

    def _follow(
        self,
        func: Callable[..., Any],
        name: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Tensor | None:
        """Take a norm or an activation directly behind a consumer along, on both paths."""
        first = args[0] if args else kwargs.get("input")
        pending = self._pending.get(id(first))
        if pending is None or not isinstance(first, Tensor) or not args:
            return None
        if is_norm(func):
            result = self._follow_norm(pending, func, args, kwargs)
        elif name in _ACTIVATIONS:
            # An activation in place overwrites the base output only: the others are our own.
            result = func(*args, **kwargs)
            for key, silenced in pending.silenced.items():
                pending.silenced[key] = func(silenced, *args[1:], **kwargs)
            pending.is_linear = False
        else:
            return None
        del self._pending[id(first)]
        pending.base = result
        self._pending[id(result)] = pending
        return result

    def _follow_norm(
        self,
        pending: _Pending,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Tensor:
        scale = held_scale(func, args, kwargs)
        before = pending.base
        result: Tensor = func(*args, **kwargs)
        for key, silenced in pending.silenced.items():
            # Zero where nothing changed, to the last bit.
            pending.silenced[key] = result + scale * (silenced - before)
        over_outputs = pending.call is not None and pending.call.channel == 1
        if func is F.batch_norm and (over_outputs or before.dim() == 2):
            own = scale.flatten()
            pending.scale_C = own if pending.scale_C is None else pending.scale_C * own
        else:
            pending.is_linear = False
        return result

    def _settle(self, tensor: Tensor) -> None:
        """Compare both paths at a tensor that goes on to something else."""
        pending = self._pending.pop(id(tensor), None)
        if pending is None:
            return
        base = pending.base.to(torch.promote_types(pending.base.dtype, torch.float32))
        energy = base.square().sum(dtype=torch.float64)
        # An output that is zero everywhere counts as measured: nothing can be damaged there.
        energy = energy.clamp_min(torch.finfo(torch.float32).tiny)
        call = pending.call
        exact = call is not None and pending.is_linear and call.has_covariance
        # Counted on the CPU: no device has to be waited for.
        lengths_R = torch.bincount(self._rows(len(base)), minlength=self._num_masks).to(base.device)
        share_R = lengths_R.double() / len(base)
        for (family, variant), silenced in pending.silenced.items():
            account = self._account(family, base.device)
            change = (silenced.to(base.dtype) - base).square()
            account.is_quadratic &= exact
            if family in self._together:
                account.change_VR[variant, 0] += change.sum(dtype=torch.float64)
                account.energy_R[0] += energy * (variant == 0)
                continue
            # A scatter-add of floats is not reproducible on GPUs; sums of segments are.
            account.change_VR[variant] += torch.segment_reduce(
                change.flatten(1).sum(dim=1).double(), "sum", lengths=lengths_R, unsafe=True
            )
            account.energy_R += energy * share_R * (variant == 0)
        for slot in pending.exact:
            self._add_gram(pending, slot, energy, exact)

    def _add_gram(self, pending: _Pending, slot: FamilySlot, energy: Tensor, exact: bool) -> None:
        account = self._account(slot.family, energy.device)
        account.is_quadratic &= exact
        if not exact or pending.call is None:
            return
        outputs = pending.call.weight.shape[1 - pending.call.axis]
        scale = pending.scale_C
        scale = torch.ones(outputs, device=energy.device) if scale is None else scale
        gram = pending.call.gram(scale, slot.position.to(energy.device))
        unit = (slot.unit - slot.first).to(energy.device)
        if account.gram is None:
            account.gram = gram.new_zeros(slot.num_units, slot.num_units)
            account.gram_energy = torch.zeros_like(energy)
        account.gram.index_put_((unit[:, None], unit[None, :]), gram, accumulate=True)
        assert account.gram_energy is not None
        account.gram_energy += energy

    def _account(self, family: int, device: torch.device) -> _Account:
        if family not in self._accounts:
            shape = (len(self._ablation.off_VRU), self._num_masks)
            zeros = torch.zeros(shape, dtype=torch.float64, device=device)
            self._accounts[family] = _Account(zeros, zeros[0].clone())
        return self._accounts[family]

    def _rows(self, num_rows: int) -> Tensor:
        """Return the mask of every entry of an input's first axis, ascending."""
        return torch.arange(num_rows) * self._num_masks // num_rows

    def _off_at(self, slot: FamilySlot, device: torch.device) -> Tensor:
        if self._off is None:
            self._off = self._ablation.off_VRU[:, : self._num_masks].to(device)
        off_VRP = self._off.new_zeros(*self._off.shape[:2], slot.size)
        off_VRP[..., slot.position.to(device)] = self._off[..., slot.unit.to(device)]
        return off_VRP


def _runs_along(parameter: Tensor, axis: int, weight: Tensor, other: int) -> bool:
    """Say whether an axis of a weight is the whole of an axis of the parameter behind it."""
    if weight is parameter:
        return axis == other
    same_step = weight.stride(other) == parameter.stride(axis)
    return same_step and weight.shape[other] == parameter.shape[axis]
