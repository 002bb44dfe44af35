"""A method that does what a test tells it to, and writes down what it was told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from secateur.methods import Draw, State
from secateur.structure import Decision, Live, Structure
from secateur.training import Session
from tests.structures import Built


def all_but(structure: Structure, units: tuple[int, ...] = (), layers: tuple[int, ...] = ()):
    """Gates with some of them off, in flat unit numbers."""
    units_U = torch.ones(structure.num_units, dtype=torch.bool)
    layers_L = torch.ones(structure.num_layers, dtype=torch.bool)
    units_U[list(units)] = False
    layers_L[list(layers)] = False
    return Draw(units_U=units_U, layers_L=layers_L)


@dataclass
class Scripted:
    """Method and search in one: draws, probes and decisions by step number."""

    draws: Mapping[int, Draw] | Draw = field(default_factory=dict)
    probes: Mapping[int, Draw] = field(default_factory=dict)
    decisions: Mapping[int, Decision] = field(default_factory=dict)
    settle: int | None = None
    settled: bool = False
    step: int = 0
    observed: list = field(default_factory=list)
    rises: list = field(default_factory=list)
    gone: list = field(default_factory=list)
    num_draws: int = 0
    numbers: list = field(default_factory=list)

    def begin(self, structure, *, total_steps, steps_per_epoch, generator, device):
        self.structure = structure
        self.generator = generator
        return self

    def draw(self) -> Draw | None:
        self.num_draws += 1
        self.numbers.append(float(torch.rand((), generator=self.generator, device="cpu")))
        return self.draws if isinstance(self.draws, Draw) else self.draws.get(self.step)

    def probe(self) -> Draw | None:
        return self.probes.get(self.step)

    def observe(self, unit_gradient_U, layer_gradient_L, draw, batch_size) -> None:
        self.observed.append((unit_gradient_U.clone(), layer_gradient_L.clone(), draw, batch_size))
        self.step += 1
        self.settled = self.settle is not None and self.step >= self.settle

    def observe_probe(self, probe, rise) -> None:
        assert isinstance(rise, float)
        self.rises.append(rise)

    def decide(self) -> Decision:
        return self.decisions.get(self.step, Decision())

    def should_cut(self, live: Live, pending: Decision) -> bool:
        return True

    def removed(self, decision) -> None:
        self.gone.append(decision)

    def record(self) -> dict[str, object]:
        return {"price": 0.25}

    def state_dict(self) -> State:
        return {"step": self.step, "settled": int(self.settled)}

    def load_state_dict(self, state: State) -> None:
        self.step = int(state["step"])
        self.settled = bool(state["settled"])


def start(
    built: Built,
    method: Scripted,
    optimizer: torch.optim.Optimizer | None = None,
    **settings,
) -> tuple[Session, torch.optim.Optimizer]:
    """Begin a session on a hand-made structure."""
    optimizer = optimizer or torch.optim.SGD(built.model.parameters(), lr=0.1, momentum=0.9)
    session = Session(
        built.model,
        settings.pop("wrapper", built.model),
        optimizer,
        built.structure,
        method,
        total_steps=settings.pop("total_steps", 100),
        **settings,
    )
    return session, optimizer


def labels_of(batch: torch.Tensor) -> torch.Tensor:
    return torch.arange(len(batch)) % 3


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: torch.Tensor,
    loss: Callable[..., torch.Tensor] = nn.functional.cross_entropy,
) -> torch.Tensor:
    """The plainest loop body there is."""
    optimizer.zero_grad()
    value = loss(model(batch), labels_of(batch))
    value.backward()
    optimizer.step()
    return value.detach()


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Equal names, shapes and bits (up to the sign of zero)."""
    assert found.keys() == expected.keys()
    different = [name for name in found if not torch.equal(found[name], expected[name])]
    assert not different, different
