"""Measures what silencing units does to the outputs of their consumers, and nowhere else.

A unit's consumers are the calls whose weights its gate multiplies. Each is made a second time with
units silenced; the norm that follows keeps the statistics of the base path, the activation that
follows is applied, and there both outputs are compared. Nothing of the second path goes on. Where
consumers are inside a fused call, the whole call is made a second time, with zeros in its weights.

Letters: U units over all families, F families, R masks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import nn

from secateur.gates._ablation import Ablation, Damage
from secateur.gates._recorder import FamilySlot, Recorder
from secateur.gates._slots import Slot, find_slots
from secateur.structure import Live, Structure


class DamageMeter:
    """Measures damage at consumers during a forward pass of the model.

    Args:
        model: The model, in state ``live`` of ``structure``.
        structure: What the model is made of.
        live: What is left of it.

    Example:
        >>> from secateur.structure import trace
        >>> net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2, bias=False))
        >>> _ = net[1].weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        >>> structure = trace(net, torch.zeros(1, 3))
        >>> meter = DamageMeter(net, structure, structure.everything())
        >>> off = torch.eye(2, dtype=torch.bool)
        >>> ablation = Ablation(off_VRU=off[None], sampled=frozenset({0}))
        >>> x = torch.ones(2, 3)
        >>> damage = meter.measure(ablation, lambda: net(x), num_samples=2)
        >>> (damage.change_VRF[0] / damage.energy_RF).flatten().tolist()
        [1.0, 0.0]
    """

    def __init__(self, model: nn.Module, structure: Structure, live: Live) -> None:
        parameters = dict(model.named_parameters())
        self._structure = structure
        self._slots: dict[int, list[FamilySlot]] = {}
        self._needed: list[set[int]] = [set() for _ in structure.families]
        self._together: set[int] = set()
        # Held, so that the numbers of these objects stay theirs.
        self._parameters: list[nn.Parameter] = []
        for slot in find_slots(structure, live):
            parameter = parameters[slot.tensor]
            for entry in _by_family(slot, structure):
                self._slots.setdefault(id(parameter), []).append(entry)
                self._needed[entry.family].add(id(parameter))
                self._parameters.append(parameter)

    def measure(
        self, ablation: Ablation, forward: Callable[[], object], num_samples: int
    ) -> Damage:
        """Run a forward pass without gradients, and measure along the way.

        The forward pass itself computes what it would compute without being measured.

        Args:
            ablation: What to measure.
            forward: Calls the model.
            num_samples: Number of samples in its batch; masks beyond it stay unmeasured.

        Returns:
            What was measured.
        """
        recorder = Recorder(self._slots, ablation, num_samples, len(self._needed), self._together)
        with torch.no_grad():
            with recorder:
                forward()
            recorder.finish()
            return recorder.damage(self._needed, self._structure)


def _by_family(slot: Slot, structure: Structure) -> Iterator[FamilySlot]:
    if slot.axis is None:
        return
    for family, start in enumerate(structure.offsets[:-1]):
        inside = (slot.gate >= start) & (slot.gate < structure.offsets[family + 1])
        if bool(inside.any()):
            position = inside.nonzero().flatten()
            yield FamilySlot(
                family=family,
                num_units=structure.families[family].num_units,
                axis=slot.axis,
                position=position,
                unit=slot.gate[position],
                first=start,
                size=len(slot.gate),
            )
