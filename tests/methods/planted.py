"""Small networks of which it is known what is useful."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from secateur.methods import ComplexityAware, ComplexitySearch
from secateur.structure import Structure, trace


class Residual(nn.Module):
    """Two residual branches on a stream of features, and a linear head."""

    def __init__(self, features: int = 6, inner: int = 4) -> None:
        super().__init__()
        self.stem = nn.Linear(features, features)
        self.one = Branch(features, inner)
        self.two = Branch(features, inner)
        self.head = nn.Linear(features, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(self.stem(x))))


class Branch(nn.Module):
    """The input plus a small perceptron of it."""

    def __init__(self, features: int, inner: int) -> None:
        super().__init__()
        self.up = nn.Linear(features, inner)
        self.down = nn.Linear(inner, features)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


def perceptron(useful: int, useless: int) -> nn.Sequential:
    """Return one hidden layer whose last units have zero outgoing weights."""
    model = nn.Sequential(nn.Linear(5, useful + useless), nn.ReLU(), nn.Linear(useful + useless, 3))
    with torch.no_grad():
        model[2].weight.normal_()
        model[2].weight[:, useful:] = 0
    return model


def data_of(model: nn.Module, num_inputs: int, batch: int = 32) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield inputs and what the model as it is now makes of them, plus unit noise."""
    teacher = [p.detach().clone() for p in model.parameters()]
    names = [name for name, _ in model.named_parameters()]
    generator = torch.Generator().manual_seed(11)
    while True:
        x = torch.randn(batch, num_inputs, generator=generator)
        with torch.no_grad():
            y = torch.func.functional_call(model, dict(zip(names, teacher, strict=True)), x)
        yield x, y + torch.randn(y.shape, generator=generator)


def half_squares(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Negative log-likelihood in nats under unit noise, without its constant."""
    return ((model(x) - y) ** 2).sum(dim=1).mean() / 2


def begin(
    method: ComplexityAware, structure: Structure, total_steps: int, seed: int = 0
) -> ComplexitySearch:
    return method.begin(
        structure,
        total_steps=total_steps,
        steps_per_epoch=10,
        generator=torch.Generator().manual_seed(seed),
        device="cpu",
    )


def traced(model: nn.Module, num_inputs: int) -> Structure:
    return trace(model, torch.zeros(1, num_inputs))
