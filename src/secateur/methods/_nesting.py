"""Which structures lie inside which layers, and so say nothing, or vanish, with them.

Letters: U units, L layers, F families, M members, S structures (units, then layers).
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.structure import Structure


class Nesting:
    """Membership of a structure's units and layers in its layers.

    Args:
        structure: Families and layers.
        device: Where masks are computed.
    """

    def __init__(self, structure: Structure, device: torch.device | str) -> None:
        tensors = [layer.tensors for layer in structure.layers]
        members = [(f, m) for f, family in enumerate(structure.families) for m in family.members]
        consuming = [(f, m.tensor) for f, m in members if m.consumes]
        everywhere = [(f, m.tensor) for f, m in members]
        num_families = len(structure.families)
        self.family_U = torch.repeat_interleave(
            torch.arange(num_families),
            torch.tensor([family.num_units for family in structure.families], dtype=torch.int64),
        ).to(device)
        self._consumed = _Cover(consuming, tensors, num_families, device)
        self._owned = _Cover(everywhere, tensors, num_families, device)
        inside = [
            [
                outer is not inner and set(inner.closing) <= outer.tensors
                for outer in structure.layers
            ]
            for inner in structure.layers
        ]
        num_layers = len(structure.layers)
        self._inside_LL = (
            torch.tensor(inside, dtype=torch.bool).reshape(num_layers, num_layers).to(device)
        )
        self._any_layer = num_layers > 0

    def seen(self, layers_L: Tensor) -> Tensor:
        """Find the structures whose gradients mean something.

        Args:
            layers_L: True where a layer is on.

        Returns:
            Bool ``[S]``; False for units that are used in closed layers only and for layers inside
            closed layers: their gradients are 0 whatever they are worth.
        """
        if not self._any_layer:
            return torch.ones_like(self.family_U, dtype=torch.bool)
        off_L = ~layers_L
        units_U = ~self._consumed.covered(off_L)[self.family_U]
        return torch.cat([units_U, ~(self._inside_LL & off_L).any(dim=1)])

    def covered(self, off_L: Tensor) -> Tensor:
        """Find what lies in layers that are gone or about to go.

        Args:
            off_L: True where a layer goes.

        Returns:
            Bool ``[S]``; True for units all of whose slices lie in such layers, and for layers
            inside others that go.
        """
        if not self._any_layer:
            return torch.zeros_like(self.family_U, dtype=torch.bool)
        units_U = self._owned.covered(off_L)[self.family_U]
        return torch.cat([units_U, (self._inside_LL & off_L).any(dim=1)])

    def chance(self, phi_L: Tensor) -> Tensor:
        """Return the probability that all layers around a structure are on.

        Args:
            phi_L: Probability of each layer, > 0.

        Returns:
            Product over the layers that hold all of the structure, ``[S]``.
        """
        if not self._any_layer:
            return phi_L.new_ones(len(self.family_U))
        log_L = phi_L.log()
        units_U = (self._owned.inside_FL.to(log_L.dtype) @ log_L)[self.family_U]
        return torch.cat([units_U, self._inside_LL.to(log_L.dtype) @ log_L]).exp()

    def around(self, family: int) -> Tensor:
        """Return the layers that hold all of a family, bool ``[L]``."""
        return self._owned.inside_FL[family]

    def above(self, layer: int) -> Tensor:
        """Return the layers that hold a layer, bool ``[L]``."""
        return self._inside_LL[layer]


class _Cover:
    """For every family, whether given layers hold all of its members."""

    def __init__(
        self,
        members: list[tuple[int, str]],
        tensors: list[frozenset[str]],
        num_families: int,
        device: torch.device | str,
    ) -> None:
        family_M = torch.tensor([f for f, _ in members], dtype=torch.int64)
        lies = [[name in layer for layer in tensors] for _, name in members]
        in_ML = torch.tensor(lies, dtype=torch.bool).reshape(len(members), len(tensors))
        total_F = torch.bincount(family_M, minlength=num_families)
        inside_FL = torch.zeros(num_families, len(tensors), dtype=torch.int64)
        inside_FL.index_add_(0, family_M, in_ML.to(torch.int64))
        self.inside_FL = ((inside_FL == total_F[:, None]) & (total_F > 0)[:, None]).to(device)
        self._family_M = family_M.to(device)
        self._in_ML = in_ML.to(device)
        self._never_F = (total_F == 0).to(device)

    def covered(self, off_L: Tensor) -> Tensor:
        outside_M = (~(self._in_ML & off_L).any(dim=1)).to(torch.int64)
        outside_F = torch.zeros_like(self._never_F, dtype=torch.int64)
        return (outside_F.index_add(0, self._family_M, outside_M) == 0) & ~self._never_F
