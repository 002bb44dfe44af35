"""What is known about every structure's worth: running gate moments, corrected by measurements.

Letters: U units, L layers, F families, S structures (units, then layers).
"""

from __future__ import annotations

import torch
from torch import Tensor

from secateur.methods._estimators import (
    RISE,
    Estimator,
    curvature,
    empty_moments,
    update_moments,
)
from secateur.methods._probes import Measurements
from secateur.methods._protocol import State, tensor_of
from secateur.structure import Structure

_MEASURED = ("rise_L", "variance_L", "count_L", "last_L", "last_F", "sums_F2")


class Statistics:
    """Estimates of the rise of the loss when a structure is switched off.

    Args:
        structure: Families and layers.
        family_U: Family of every unit.
        estimator: How gate gradients become a rise.
        device: Where the statistics live.

    Attributes:
        measured: What probes found out.
    """

    def __init__(
        self,
        structure: Structure,
        family_U: Tensor,
        estimator: Estimator,
        device: torch.device | str,
    ) -> None:
        num_layers = structure.num_layers
        self.measured = Measurements(num_layers, len(structure.families), device)
        self._estimate = RISE[estimator]
        self._family_U = family_U
        self._moments = empty_moments(len(family_U) + num_layers, device)
        self._factor_S = torch.ones_like(self._moments[0, 0])
        self._rise_L = torch.zeros_like(self._factor_S[len(family_U) :])
        self._is_measured_L = torch.zeros_like(self._rise_L, dtype=torch.bool)
        self._batch_size = 1.0
        self._gradient_U: Tensor | None = None
        self._answer: tuple[int, Tensor, float] | None = None

    def take_in(self, gradient_S: Tensor, on_S: Tensor, seen_S: Tensor, batch_size: int) -> None:
        """Add one step.

        Args:
            gradient_S: Gate gradients.
            on_S: True where the gate was on.
            seen_S: True where the gradient means something.
            batch_size: Number of samples behind it.
        """
        self._batch_size = float(batch_size)
        self._moments = update_moments(self._moments, gradient_S, on_S, seen_S, batch_size)
        self._gradient_U = gradient_S[: len(self._family_U)]
        self._compare()

    def begin_step(self) -> None:
        """Forget the gradients of the last step, with which no new probe may be compared."""
        self._gradient_U, self._answer = None, None

    def add_layer(self, layer: int, rise: float) -> None:
        """Take in a measured rise in nats; from the first on it replaces the estimate."""
        self.measured.add_layer(layer, rise)
        self._copy_layers()

    def add_units(self, family: int, subset_U: Tensor, rise: float) -> None:
        """Take in what switching off a subset of a family did, in nats.

        It is compared with the gate gradients of the same batch, which may come before or after.
        """
        self._answer = (family, subset_U, rise)
        self._compare()

    def rise(self) -> Tensor:
        """Return the rise of the loss without each structure, in nats, ``[S]``."""
        rise_S = self._estimate(self._moments, self._batch_size, self._factor_S)
        rise_L = torch.where(self._is_measured_L, self._rise_L, rise_S[len(self._family_U) :])
        return torch.cat([rise_S[: len(self._family_U)], rise_L])

    def calibrate(self) -> None:
        """Let the measured factors of the families act on the estimates from now on."""
        self._factor_S[: len(self._family_U)] = self.measured.factor()[self._family_U]

    def state_dict(self) -> State:
        """Return what a resumed run needs."""
        state: State = {f"measured_{n}": getattr(self.measured, n).clone() for n in _MEASURED}
        state |= {"moments": self._moments.clone(), "factor": self._factor_S.clone()}
        state["batch_size"] = self._batch_size
        return state

    def load_state_dict(self, state: State) -> None:
        """Continue from what `state_dict` returned."""
        for name in _MEASURED:
            own = getattr(self.measured, name)
            setattr(self.measured, name, tensor_of(state, f"measured_{name}", own))
        self._moments = tensor_of(state, "moments", self._moments)
        self._factor_S = tensor_of(state, "factor", self._factor_S)
        self._batch_size = float(state["batch_size"])
        self._copy_layers()

    def _compare(self) -> None:
        if self._answer is None or self._gradient_U is None:
            return
        family, subset_U, rise = self._answer
        curvature_U = curvature(self._moments, self._batch_size)[: len(self._family_U)]
        self.measured.add_units(family, subset_U, rise, self._gradient_U, curvature_U)
        self._answer = None

    def _copy_layers(self) -> None:
        self._rise_L.copy_(self.measured.rise_L)
        self._is_measured_L.copy_(self.measured.count_L > 0)
