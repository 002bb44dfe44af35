"""ResRep at work: compactors shrink, rows are chosen, and forgotten rows take their units along.

After Ding et al., ICCV 2021 (arXiv 2007.03260), section 3. Departures, with their reasons, are
listed in docs/methods/resrep.md.

Letters: U units of a family, F families.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.gates import Compactors
from secateur.methods._protocol import Draw, State, tensor_of
from secateur.structure import Decision, Live, Structure


@dataclass(frozen=True, slots=True, kw_only=True)
class ResRepTerms:
    """What a run works with, all in steps or shares.

    Attributes:
        target: Share of the MACs to end at.
        penalty: Fall of a row's norm in a step, divided by the learning rate.
        momentum: Momentum of the compactors.
        warmup: Steps before rows are chosen.
        until: Step of the last choice.
        fall: Steps in which a chosen row is zero at the latest, at least 2.
        interval: Steps from one choice to the next.
        min_units: Units that every family keeps.
    """

    target: float
    penalty: float
    momentum: float
    warmup: int
    until: int
    fall: int
    interval: int
    min_units: int


class ResRepSearch:
    """One run of ResRep.

    Args:
        structure: What the model is made of.
        terms: What the run works with.

    Attributes:
        settled: True once what goes has been said.
        step: Updates of the optimizer so far.
        forgotten: Family to the rows that were chosen, bool ``[U]``, on the CPU.
    """

    def __init__(self, structure: Structure, terms: ResRepTerms) -> None:
        self.settled = False
        self.step = 0
        self.forgotten: dict[int, Tensor] = {}
        self._structure = structure
        self._terms = terms
        self._compactors: Compactors | None = None
        self._velocity: dict[int, Tensor] = {}
        self._speed: dict[int, Tensor] = {}

    def equip(self, compactors: Compactors) -> None:
        """Take over the compactors of the model.

        Args:
            compactors: All of them, each the identity.
        """
        self._compactors = compactors
        for family, matrix_UU in compactors.matrices.items():
            self.forgotten[family] = torch.zeros(len(matrix_UU), dtype=torch.bool)
            self._velocity[family] = torch.zeros_like(matrix_UU)
            self._speed[family] = matrix_UU.new_zeros(len(matrix_UU))

    def draw(self) -> Draw | None:
        """Return None: no gates are drawn."""
        return None

    def probe(self) -> Draw | None:
        """Return None: no losses are measured on the side."""
        return None

    def observe_probe(self, probe: Draw, rise: float) -> None:
        """Do nothing: there are no probes."""

    def observe(
        self,
        unit_gradient_U: Tensor,
        layer_gradient_L: Tensor,
        draw: Draw | None,
        batch_size: int,
    ) -> None:
        """Do nothing: compactors have gradients of their own.

        Args:
            unit_gradient_U: Not used.
            layer_gradient_L: Not used.
            draw: Not used.
            batch_size: Not used.
        """

    @torch.no_grad()
    def train_compactors(self, rates: Mapping[int, float]) -> None:
        """Update every compactor, and choose rows when it is time.

        A step of heavy-ball SGD by the loss, for the rows not chosen, and a proximal step that
        takes ``rate * penalty`` off every row's norm, down to exactly zero.

        Args:
            rates: Family to learning rate.
        """
        if self.settled or self._compactors is None:
            return
        self.step += 1
        for family, matrix_UU in self._compactors.matrices.items():
            gradient_UU = self._compactors.gradients.get(family)
            self._descend(family, matrix_UU, gradient_UU, rates[family])
        since = self.step - self._terms.warmup
        if self.step == self._terms.until or (
            0 <= since < self._terms.until - self._terms.warmup
            and since % self._terms.interval == 0
        ):
            self.choose(self._line())
        self.settled = self._is_done()

    @torch.no_grad()
    def choose(self, share: float) -> None:
        """Choose rows, the smallest norm first, until so much of the MACs would be left.

        Args:
            share: Share of the starting network's MACs.
        """
        norms = self._norms()
        for family, norm_U in norms.items():
            # What the penalty alone has emptied, while units are left to do without it.
            self._forget(family, torch.nonzero((norm_U == 0) & ~self.forgotten[family]).flatten())
        ranked = sorted(
            (float(norm), family, unit)
            for family, norm_U in norms.items()
            for unit, norm in enumerate(norm_U.tolist())
            if not self.forgotten[family][unit]
        )
        room = {family: self._room(family) for family in norms}
        going: list[tuple[int, int]] = []
        for _, family, unit in ranked:
            if room[family] > 0:
                room[family] -= 1
                going.append((family, unit))
        low, high = 0, len(going)
        while low < high:
            middle = (low + high) // 2
            if self._share(going[:middle]) <= share:
                high = middle
            else:
                low = middle + 1
        for family in norms:
            self._forget(family, torch.tensor([u for f, u in going[:low] if f == family]).long())

    def decide(self) -> Decision:
        """Return the units whose rows are zero, once all that were chosen are."""
        if not self.settled or self._compactors is None:
            return Decision()
        for family, norm_U in self._norms().items():
            self._forget(family, torch.nonzero((norm_U == 0) & ~self.forgotten[family]).flatten())
        return Decision(
            units={
                family: torch.nonzero(forgotten_U).flatten()
                for family, forgotten_U in self.forgotten.items()
                if bool(forgotten_U.any())
            }
        )

    def should_cut(self, live: Live, pending: Decision) -> bool:
        """Say no: until everything chosen is zero, kernels remember what compactors forget."""
        return False

    def removed(self, decision: Decision) -> None:
        """Let go of the compactors: parameters hold their products."""
        self._compactors = None
        self._velocity, self._speed = {}, {}

    def record(self) -> dict[str, object]:
        """Return how many rows of every family have been chosen."""
        return {
            "forgotten": {
                self._structure.families[family].name: int(forgotten_U.sum())
                for family, forgotten_U in self.forgotten.items()
            }
        }

    def state_dict(self) -> State:
        """Return everything a resumed run needs, as tensors and numbers."""
        state: State = {"step": self.step, "settled": int(self.settled)}
        for family, forgotten_U in self.forgotten.items():
            state[f"{family}.forgotten"] = forgotten_U.clone()
        if self._compactors is None:
            return state
        for family, matrix_UU in self._compactors.matrices.items():
            state[f"{family}.matrix"] = matrix_UU.clone()
            state[f"{family}.velocity"] = self._velocity[family].clone()
            state[f"{family}.speed"] = self._speed[family].clone()
        kernels = self._compactors.kernels.items()
        return state | {f"kernel.{name}": kernel.clone() for name, kernel in kernels}

    def load_state_dict(self, state: State) -> None:
        """Continue from what `state_dict` returned.

        Args:
            state: Tensors and numbers of a run with the same structure and settings.

        Raises:
            UsageError: The state belongs to another structure.
        """
        self.step = int(state["step"])
        self.settled = bool(state["settled"])
        for family, forgotten_U in self.forgotten.items():
            self.forgotten[family] = tensor_of(state, f"{family}.forgotten", forgotten_U)
        if self.settled or self._compactors is None:
            return
        for family, matrix_UU in self._compactors.matrices.items():
            matrix_UU.copy_(tensor_of(state, f"{family}.matrix", matrix_UU))
            for name, values in (("velocity", self._velocity), ("speed", self._speed)):
                values[family] = tensor_of(state, f"{family}.{name}", values[family])
        self._compactors.load_kernels(
            {
                name.removeprefix("kernel."): torch.as_tensor(value)
                for name, value in state.items()
                if name.startswith("kernel.")
            }
        )

    def _descend(
        self, family: int, matrix_UU: Tensor, gradient_UU: Tensor | None, rate: float
    ) -> None:
        chosen_U = self.forgotten[family].to(matrix_UU.device)
        velocity_UU = self._velocity[family]
        if gradient_UU is not None:
            velocity_UU.mul_(self._terms.momentum).add_(gradient_UU)
            velocity_UU[chosen_U] = 0
            matrix_UU.sub_(rate * velocity_UU)
        fall_U = self._speed[family].clamp_min(rate * self._terms.penalty)
        norm_U = matrix_UU.norm(dim=1)
        # Not 1 - fall / norm: at the last step that may miss zero by a rounding.
        left_U = (norm_U - fall_U).clamp_min(0)
        matrix_UU.mul_((left_U / norm_U.clamp_min(torch.finfo(norm_U.dtype).tiny)).unsqueeze(1))

    def _forget(self, family: int, units: Tensor) -> None:
        """Cut rows off from the loss, and see to it that they are zero in time."""
        units = units[: self._room(family)]
        if self._compactors is None or not len(units):
            return
        self.forgotten[family][units] = True
        units = units.to(self._speed[family].device)
        norm_U = self._compactors.matrices[family][units].norm(dim=1)
        self._speed[family][units] = norm_U / (self._terms.fall - 1)
        self._velocity[family][units] = 0

    def _room(self, family: int) -> int:
        """Return how many more units of a family may go."""
        fewest = max(self._terms.min_units, self._structure.families[family].fewest)
        return max(0, int((~self.forgotten[family]).sum()) - fewest)

    def _norms(self) -> dict[int, Tensor]:
        matrices = {} if self._compactors is None else self._compactors.matrices
        return {family: matrix_UU.norm(dim=1).cpu() for family, matrix_UU in matrices.items()}

    def _share(self, going: list[tuple[int, int]]) -> float:
        """Return the MACs without what was chosen, as a share of the starting ones."""
        counts = torch.tensor([family.num_units for family in self._structure.families])
        for family, forgotten_U in self.forgotten.items():
            counts[family] -= int(forgotten_U.sum())
        for family, _ in going:
            counts[family] -= 1
        macs = self._structure.cost.macs
        return macs.value(counts) / macs.value()

    def _line(self) -> float:
        """Return where the MACs should be now, on a straight line from the warm-up on."""
        terms = self._terms
        since, whole = self.step - terms.warmup, terms.until - terms.warmup
        part = 1.0 if self.step >= terms.until else min(1.0, (since + terms.interval) / whole)
        return 1 - (1 - terms.target) * part

    def _is_done(self) -> bool:
        if self._share([]) > self._terms.target:
            return False
        return all(
            bool((norm_U[self.forgotten[family]] == 0).all())
            for family, norm_U in self._norms().items()
        )
