"""Compactors: a square matrix a family between its units and everything that reads them.

After X. Ding et al., "ResRep: Lossless CNN Pruning via Decoupling Remembering and Forgetting",
ICCV 2021, arXiv 2007.03260. There a compactor follows the batch norm of the layer that makes the
units; here it lies in the weights that read them, which folds without bias and without the norm.

Letters: U units of a family, K positions a unit holds on an axis, R what is left of a tensor: its
other axes times K.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from secateur.errors import UsageError
from secateur.structure import Family, Member, Structure

_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Place:
    """Where the units of a family are read: one axis of one tensor."""

    family: int
    axis: int
    index: Tensor

    def rows(self, tensor: Tensor) -> Tensor:
        """Return what every unit is multiplied by, ``[U, R]``."""
        picked = tensor.index_select(self.axis, self.index.flatten().to(tensor.device))
        return picked.movedim(self.axis, 0).reshape(len(self.index), -1)

    def write_(self, tensor: Tensor, rows_UR: Tensor) -> None:
        """Put rows back where `rows` found them."""
        others = [size for axis, size in enumerate(tensor.shape) if axis != self.axis]
        values = rows_UR.reshape(self.index.numel(), *others).movedim(0, self.axis)
        index = self.index.flatten().to(tensor.device)
        tensor.index_copy_(self.axis, index, values.to(tensor.dtype))


class Compactors:
    """Splits what reads a family into an original kernel and a matrix that can forget units.

    The parameters of the model always hold the product: row j of the product is
    ``sum over d of matrix[j, d] * kernel[d]``. Only while the optimizer updates do they hold the
    kernel, with the kernel's gradient. A zero row silences its unit exactly.

    Args:
        model: The model, with nothing removed.
        structure: What it is made of.

    Attributes:
        matrices: Family to its compactor, ``[U, U]``, the identity in the beginning.
        gradients: Family to the gradient of the loss by its compactor, as of the last
            `take_off_`; absent where no gradient arrived.
    """

    def __init__(self, model: nn.Module, structure: Structure) -> None:
        self._places = _readers(structure, compactable(structure))
        self._parameters = {name: model.get_parameter(name) for name in self._places}
        self.matrices: dict[int, Tensor] = {}
        for name, places in self._places.items():
            weight = self._parameters[name]
            for place in places:
                self.matrices[place.family] = torch.eye(
                    len(place.index),
                    dtype=torch.promote_types(weight.dtype, torch.float32),
                    device=weight.device,
                )
        self.gradients: dict[int, Tensor] = {}
        self.kernels: dict[str, Tensor] = {}
        self._versions: dict[str, int] = {}
        self._replaced: dict[str, Tensor] | None = None

    def rates(self, optimizer: Optimizer) -> dict[int, float]:
        """Return the learning rate of every family: that of the first parameter that reads it.

        Args:
            optimizer: The optimizer of the model.

        Returns:
            Family to learning rate.
        """
        by_id = {id(p): float(g["lr"]) for g in optimizer.param_groups for p in g["params"]}
        found: dict[int, float] = {}
        for name, places in self._places.items():
            for place in places:
                found.setdefault(place.family, by_id[id(self._parameters[name])])
        return found

    @torch.no_grad()
    def take_off_(self, scale: float | Tensor = 1.0) -> None:
        """Let parameters hold the kernels, with their gradients, for the optimizer to update.

        Args:
            scale: What gradients are multiplied with at this moment, as by a GradScaler.

        Raises:
            UsageError: They are off already, or someone else wrote into a parameter.
        """
        if self._replaced is not None:
            raise UsageError(
                "The optimizer evaluated its closure more than once in a step, as line searches "
                "do, which compactors do not bear. Use an optimizer that evaluates once, such as "
                "torch.optim.SGD."
            )
        self._capture()
        self.gradients = {}
        self._replaced = {}
        for name, places in self._places.items():
            weight, kernel = self._parameters[name], self.kernels[name]
            gradient = weight.grad
            if gradient is not None:
                self._replaced[name] = gradient
                own = gradient.clone()
                for place in places:
                    self._pull_back(place, kernel, gradient, own, scale)
                weight.grad = own
            weight.copy_(kernel)

    @torch.no_grad()
    def put_on_(self) -> None:
        """Take the kernels as the optimizer left them, and let parameters hold the products."""
        if self._replaced is None:
            return
        for name, weight in self._parameters.items():
            self.kernels[name].copy_(weight)
            weight.copy_(self._product(name))
            self._versions[name] = weight._version
            if name in self._replaced:
                weight.grad = self._replaced[name]
        self._replaced = None

    def _pull_back(
        self, place: _Place, kernel: Tensor, gradient: Tensor, own: Tensor, scale: float | Tensor
    ) -> None:
        """Carry the gradient of a product on to its kernel and to its compactor."""
        matrix_UU = self.matrices[place.family]
        gradient_UR = place.rows(gradient).to(matrix_UU.dtype)
        kernel_UR = place.rows(kernel).to(matrix_UU.dtype)
        part_UU = gradient_UR @ kernel_UR.T / scale
        before = self.gradients.get(place.family)
        self.gradients[place.family] = part_UU if before is None else before + part_UU
        place.write_(own, matrix_UU.T @ gradient_UR)

    def _product(self, name: str) -> Tensor:
        kernel = self.kernels[name]
        product = kernel.clone()
        for place in self._places[name]:
            matrix_UU = self.matrices[place.family]
            place.write_(product, matrix_UU @ place.rows(kernel).to(matrix_UU.dtype))
        return product

    def _capture(self) -> None:
        """Copy the kernels before the first update; later check that they are still the model's."""
        for name, weight in self._parameters.items():
            if name not in self.kernels:
                self.kernels[name] = weight.detach().clone()
            elif weight._version != self._versions.get(name):
                product = self._product(name)
                bound = _TOLERANCE * float(product.abs().max())
                if not torch.allclose(weight, product, rtol=_TOLERANCE, atol=bound):
                    raise UsageError(
                        f"{name} was changed between two updates by something else than the "
                        "optimizer. It is the product of a kernel and a compactor, and nothing "
                        "says which of them changed. Change weights before the first step, or "
                        "after the search has settled."
                    )

    def load_kernels(self, kernels: Mapping[str, Tensor]) -> None:
        """Continue with kernels that were saved.

        Args:
            kernels: Parameter name to kernel, as the attribute ``kernels`` was.

        Raises:
            UsageError: Names or shapes are not those of the model.
        """
        for name, weight in self._parameters.items() if kernels else ():
            saved = kernels.get(name)
            if saved is None or saved.shape != weight.shape:
                found = "nothing" if saved is None else f"shape {list(saved.shape)}"
                raise UsageError(
                    f"the saved state has {found} for the kernel of {name}, and this model needs "
                    f"shape {list(weight.shape)}. Resume with the model the run was started with."
                )
            self.kernels[name] = saved.to(weight, copy=True)


def compactable(structure: Structure) -> tuple[int, ...]:
    """Find the families that can have a compactor.

    These are families of two or more units that a single matrix or kernel makes or a single one
    reads, so not the channels of a shared residual stream. Each parameter that reads the units has
    to do so on one axis, without sharing a position of it with another unit.

    Args:
        structure: What a model is made of.

    Returns:
        Family numbers.
    """
    axes: dict[str, set[int]] = {}
    claims: dict[tuple[str, int], Tensor] = {}
    for family in structure.families:
        for member in _reading(family.members):
            axes.setdefault(member.tensor, set()).add(member.axis)
            size = structure.tensors[member.tensor].shape[member.axis]
            counts = claims.setdefault((member.tensor, member.axis), torch.zeros(size))
            counts += torch.bincount(member.index.flatten(), minlength=size)
    return tuple(
        number
        for number, family in enumerate(structure.families)
        if family.num_units > 1
        and _reading(family.members)
        and not _is_stream(structure, family)
        and all(
            len(axes[member.tensor]) == 1
            and bool((claims[member.tensor, member.axis][member.index] == 1).all())
            for member in _reading(family.members)
        )
    )


def _is_stream(structure: Structure, family: Family) -> bool:
    """Say whether several matrices or kernels make the units, and several read them."""
    readers = {member.tensor for member in _reading(family.members)}
    makers = {
        member.tensor
        for member in family.members
        if not member.consumes and len(structure.tensors[member.tensor].shape) > 1
    }
    return len(readers) > 1 and len(makers) > 1


def _reading(members: tuple[Member, ...]) -> tuple[Member, ...]:
    return tuple(member for member in members if member.consumes)


def _readers(structure: Structure, families: tuple[int, ...]) -> dict[str, list[_Place]]:
    found: dict[str, list[_Place]] = {}
    for family in families:
        for member in _reading(structure.families[family].members):
            place = _Place(family=family, axis=member.axis, index=member.index)
            found.setdefault(member.tensor, []).append(place)
    return found
