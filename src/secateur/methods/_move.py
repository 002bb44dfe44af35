"""One family's search for units that can go: a move, made of halves.

After Ding et al., ICML 2019 (arXiv 1905.04748). A move begins with all units that are left as its
search space. A half of it measures random halves of the space and takes the units P with the
smallest mean damage T, half of the space. If T of all of P is below the tolerance, and the damage
of P itself is, too, P goes and the next move begins; else P becomes the search space; once P is a
single unit, the move is given up.

Letters: N units of the family, R rows (masks).
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.methods._halving import draw_halves, exact_damage, fitted_damage, mean_damage
from secateur.methods._protocol import State, tensor_of

_TENSORS = ("active", "space", "chosen", "moment", "cross", "gram", "gram_energy", "checked")
_NUMBERS = ("is_quadratic", "steps", "start", "failures")
MAX_FITTED = 1024
"""Most units whose damages are fitted together; the work grows with the third power."""

_NOTHING = torch.zeros(0, dtype=torch.int64)


class Move:
    """The state of one family.

    Args:
        num_units: N.
        device: Where sums are kept.

    Attributes:
        active: Units that are left, bool ``[N]``.
        space: Units of the search space, bool ``[N]``.
        chosen: Units whose own damage is measured now; none while halves are.
        moment: How many measured halves contain both units, float64 ``[N, N]``; in large families
            how many contain each unit, ``[N]``; empty where inner products are had.
        cross: Sum of the damages of the halves that contain a unit, float64 ``[N]``.
        gram: Inner products of what single units contribute, float64 ``[N, N]``; empty where masks
            are measured.
        gram_energy: Squared norm of the outputs behind ``gram``.
        checked: Change and energy under ``chosen``, float64 ``[2]``.
        is_quadratic: Whether inner products can be had instead of masks.
        steps: Steps measured since the last decision.
        start: First step that is measured.
        failures: Moves given up in a row.
    """

    def __init__(self, num_units: int, device: torch.device | str) -> None:
        self.active = torch.ones(num_units, dtype=torch.bool)
        self.space = self.active.clone()
        self.chosen = torch.zeros(num_units, dtype=torch.bool)
        self.cross = torch.zeros(num_units, dtype=torch.float64, device=device)
        shape = (num_units, num_units) if num_units <= MAX_FITTED else (num_units,)
        self.moment = self.cross.new_zeros(shape)
        self.gram = self.cross.new_zeros(0, 0)
        self.gram_energy = torch.zeros((), dtype=torch.float64, device=device)
        self.checked = torch.zeros(2, dtype=torch.float64, device=device)
        self.is_quadratic = False
        self.steps = 0
        self.start = 0
        self.failures = 0

    @property
    def num_active(self) -> int:
        """Number of units that are left."""
        return int(self.active.sum())

    @property
    def is_checking(self) -> bool:
        """Whether the damage of a chosen set is being measured."""
        return bool(self.chosen.any())

    def measure_inner_products(self) -> None:
        """Say, before anything is measured, that inner products come instead of masks."""
        self.is_quadratic = True
        self.moment = self.cross.new_zeros(0, 0)
        self.gram = self.cross.new_zeros(len(self.space), len(self.space))

    def masks(self, num_rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return what the next forward pass silences.

        Args:
            num_rows: R.
            generator: Source of randomness.

        Returns:
            Two bool tensors ``[R, N]``: a random half of the search space, and another disjoint
            from it; while a set is checked, that set in every row.
        """
        if self.is_checking:
            rows = self.chosen.expand(num_rows, -1)
            return rows, rows
        inside = self.space.nonzero().flatten()
        first, second = draw_halves(len(inside), num_rows, generator)
        both = []
        for half in (first, second):
            rows = torch.zeros(num_rows, len(self.space), dtype=torch.bool)
            rows[:, inside] = half.cpu()
            both.append(rows)
        return both[0], both[1]

    def take_masks(self, off_RN: Tensor, change_R: Tensor, energy_R: Tensor) -> None:
        """Take in the damage of masks.

        Args:
            off_RN: What each mask silenced.
            change_R: Squared norms of the change, float64.
            energy_R: Squared norms of the outputs; 0 where nothing was measured.
        """
        if self.is_checking:
            self.checked += torch.stack([change_R.sum(), energy_R.sum()]).to(self.checked)
            return
        change_R, energy_R = change_R.to(self.cross), energy_R.to(self.cross)
        # Where there is no output at all, nothing can be damaged; what is not finite says nothing.
        known_R = (energy_R > 0) & change_R.isfinite() & energy_R.isfinite()
        damage_R = torch.where(known_R, change_R / energy_R, 0.0)
        rows = off_RN.to(self.cross) * known_R[:, None]
        self.moment += rows.t() @ rows if self.moment.dim() == 2 else rows.sum(dim=0)
        self.cross += rows.t() @ damage_R

    def take_gram(self, gram_NN: Tensor, energy: Tensor) -> None:
        """Take in inner products of one forward pass.

        Args:
            gram_NN: Over the family's units, float64.
            energy: Squared norm of the outputs of its consumers.
        """
        if bool(gram_NN.isfinite().all()):
            self.gram += gram_NN.to(self.gram)
            self.gram_energy += energy.to(self.gram)

    def conclude(self, tolerance: float) -> Tensor:
        """Decide what the measurements of the last steps mean, and move on.

        Args:
            tolerance: Damage below which units may go.

        Returns:
            Units that may go, those with the smallest damage first, int64; most often none.
        """
        self.steps = 0
        if self.is_checking:
            return self._conclude_check(tolerance)
        if self.is_quadratic:
            return self._conclude_at_once(tolerance)
        weakest, worst = self._weakest(self._sampled())
        if worst < tolerance:
            self.chosen[weakest] = True
        else:
            self._refine(weakest)
        return _NOTHING

    def take_away(self, gone: Tensor) -> None:
        """Begin the next move without some units.

        Args:
            gone: Their numbers.
        """
        self.active[gone] = False
        self.failures = 0
        self.restart()

    def restart(self) -> None:
        """Begin a move over everything that is left."""
        self.space = self.active.clone()
        self._forget()

    def state_dict(self) -> State:
        """Return everything a resumed run needs."""
        state: State = {name: getattr(self, name).clone() for name in _TENSORS}
        return state | {name: int(getattr(self, name)) for name in _NUMBERS}

    def load_state_dict(self, state: State) -> None:
        """Continue from what `state_dict` returned.

        Args:
            state: Tensors and numbers of a family of as many units.

        Raises:
            UsageError: The state belongs to another family.
        """
        for name in _NUMBERS:
            setattr(self, name, int(state[name]))
        self.is_quadratic = bool(self.is_quadratic)
        if self.is_quadratic:
            self.measure_inner_products()
        for name in _TENSORS:
            setattr(self, name, tensor_of(state, name, getattr(self, name)))

    def _conclude_check(self, tolerance: float) -> Tensor:
        """Let the chosen set go if it is itself below the tolerance."""
        change, energy = self.checked.tolist()
        chosen = self.chosen.nonzero().flatten()
        # In the order of T, so that the least harmful go first if not all of them do.
        order = self._sampled()[chosen].argsort(stable=True)
        if energy > 0 and change < tolerance * energy:
            return chosen[order]
        self._refine(chosen)
        return _NOTHING

    def _conclude_at_once(self, tolerance: float) -> Tensor:
        """Go through all halves of a move: inner products answer for every set."""
        if not float(self.gram_energy) > 0:
            self._give_up()
            return _NOTHING
        gram = (self.gram / self.gram_energy).cpu()
        while True:
            inside = self.space.nonzero().flatten()
            damage = torch.full((len(self.space),), torch.inf, dtype=torch.float64)
            damage[inside] = exact_damage(gram[inside][:, inside])
            weakest, worst = self._weakest(damage)
            # The damage of the set itself is the sum over it.
            if worst < tolerance and float(gram[weakest][:, weakest].sum()) < tolerance:
                return weakest
            if len(weakest) == 1:
                self._give_up()
                return _NOTHING
            self.space = torch.zeros_like(self.space)
            self.space[weakest] = True

    def _weakest(self, damage_N: Tensor) -> tuple[Tensor, float]:
        """Return the half of the search space with the smallest damage, and its largest damage."""
        inside = self.space.nonzero().flatten()
        order = damage_N[inside].argsort(stable=True)[: len(inside) // 2]
        weakest = inside[order]
        return weakest, float(damage_N[weakest].max())

    def _sampled(self) -> Tensor:
        damage = torch.full((len(self.space),), torch.inf, dtype=torch.float64)
        inside = self.space.nonzero().flatten()
        moment, cross = self.moment.cpu()[inside], self.cross.cpu()[inside]
        if moment.dim() == 2:
            damage[inside] = fitted_damage(moment[:, inside], cross)
        else:
            damage[inside] = mean_damage(moment, cross)
        return damage

    def _refine(self, weakest: Tensor) -> None:
        if len(weakest) == 1:
            self._give_up()
            return
        self.space = torch.zeros_like(self.space)
        self.space[weakest] = True
        self._forget()

    def _give_up(self) -> None:
        self.failures += 1
        self.restart()

    def _forget(self) -> None:
        self.chosen = torch.zeros_like(self.chosen)
        for sums in (self.moment, self.cross, self.gram, self.gram_energy, self.checked):
            sums.zero_()
