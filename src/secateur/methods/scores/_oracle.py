"""The oracle: how much the loss truly changes when a unit is removed.

Each unit is silenced in turn and the loss measured over all batches: the truth that cheap scores
approximate. Source of the comparison: Molchanov, Mallya, Tyree, Frosio and Kautz, CVPR 2019
(arXiv 1906.10771), section 4.

Letters: U units over all families, V live units, N units at a time.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.gates import Gates
from secateur.methods.scores._live_units import only_live
from secateur.methods.scores._measuring import measuring
from secateur.methods.scores._protocol import Loss, Subject


class Oracle:
    """Scores units by the absolute change of the mean loss when a unit is removed.

    It costs one forward a live unit and batch, at several units a call where `torch.func.vmap`
    follows the model. Whether it does is not assumed: every family is silenced both ways, and where
    the two differ, or vmap gives up, units go one by one.

    Args:
        num_together: N, units a vectorised call; its memory is that of N forwards.

    Raises:
        UsageError: ``num_together`` is below 1.
    """

    needs_data = True

    def __init__(self, num_together: int = 16) -> None:
        if num_together < 1:
            raise UsageError(
                f"num_together={num_together} measures no unit. Pass 1 or more; 16 is the default."
            )
        self._num_together = num_together

    def units(self, subject: Subject) -> Tensor:
        """Return |L(without u) - L| in nats, L the mean over batches; see `Score.units`."""
        return self.changes(subject).abs()

    def changes(self, subject: Subject) -> Tensor:
        """Measure the change of the loss with its sign.

        Args:
            subject: The model.

        Returns:
            L(without u) - L in nats, ``[U]``, float64 on the CPU; 0 for what is gone.
        """
        # A call silences units of one family: what lies in front of all of them is computed once.
        offsets = subject.structure.offsets[:-1]
        together = [
            unit_N
            for start, family_U in zip(offsets, subject.live.units, strict=True)
            if family_U.any()
            for unit_N in (start + torch.nonzero(family_U).flatten()).split(self._num_together)
        ]
        total_U = torch.zeros(subject.structure.num_units, dtype=torch.float64)
        gates = Gates(subject.model, subject.structure, subject.live)
        num_batches = 0
        with measuring(subject.model), torch.no_grad():
            runner = _Runner(subject, gates)
            for batch in subject.data():
                dense = float(subject.loss_of(batch))
                for unit_N in together:
                    total_U[unit_N] += runner.losses_without(unit_N, batch) - dense
                num_batches += 1
        return only_live(total_U / num_batches, subject.live)


class _Runner:
    """Measures the loss without each of several units, together where that is right."""

    def __init__(self, subject: Subject, gates: Gates) -> None:
        self._subject = subject
        self._gates = gates
        self._together: bool | None = None

    def losses_without(self, unit_N: Tensor, batch: Any) -> Tensor:
        """Return the losses, ``[N]`` in float64 on the CPU."""
        if self._together is None:
            self._together = self._agrees(batch)
        on_NU = torch.ones(len(unit_N), self._subject.structure.num_units, dtype=torch.bool)
        on_NU[torch.arange(len(unit_N)), unit_N] = False
        return self._at_once(on_NU, batch) if self._together else self._one_by_one(on_NU, batch)

    def _agrees(self, batch: Any) -> bool:
        """Compare both ways on whole families, each of them silent: a single unit may be dead."""
        offsets = self._subject.structure.offsets
        on_FU = torch.ones(len(offsets) - 1, offsets[-1], dtype=torch.bool)
        for family, (start, end) in enumerate(itertools.pairwise(offsets)):
            on_FU[family, start:end] = False
        try:
            together_F = torch.cat([self._at_once(on_NU, batch) for on_NU in on_FU.split(1)])
        except RuntimeError:  # what vmap raises for data-dependent code and unsupported operations
            return False
        return torch.allclose(together_F, self._one_by_one(on_FU, batch), rtol=1e-5, atol=1e-7)

    def _one_by_one(self, on_NU: Tensor, batch: Any) -> Tensor:
        layers_on_L = torch.ones(self._subject.structure.num_layers, dtype=torch.bool)
        losses = []
        for on_U in on_NU:
            with self._gates.also_closed(on_U, layers_on_L):
                losses.append(float(self._subject.loss_of(batch)))
        return torch.tensor(losses, dtype=torch.float64)

    def _at_once(self, on_NU: Tensor, batch: Any) -> Tensor:
        gates = self._gates
        assert self._subject.loss is not None
        model = _LossOf(self._subject.model, self._subject.loss)
        # A weight that stays when all of these units go stays when one of them does. Left to the
        # model, it is one weight for all N, and so is what comes out of the layers before.
        without_all = gates.weights_at(on_NU.all(dim=0).float())
        changed = [
            number
            for number, (weight, parameter) in enumerate(
                zip(without_all, gates.parameters, strict=True)
            )
            if not torch.equal(weight, parameter)
        ]

        def loss_at(gate_U: Tensor) -> Tensor:
            weights = gates.weights_at(gate_U)
            replaced = {f"model.{gates.names[number]}": weights[number] for number in changed}
            loss: Tensor = torch.func.functional_call(model, replaced, (batch,))
            return loss

        losses_N: Tensor = torch.func.vmap(loss_at)(on_NU.float())
        return losses_N.cpu().double()


class _LossOf(nn.Module):
    """The loss as a module, whose parameters `torch.func.functional_call` can replace."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, batch: Any) -> Tensor:
        return self._loss(self.model, batch)
