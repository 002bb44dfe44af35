"""Hand-made structures of tiny networks: the oracle for everything that works on a `Structure`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from secateur.structure import (
    Cost,
    Factor,
    Family,
    Layer,
    Member,
    Polynomial,
    Structure,
    Stub,
    TensorInfo,
    Term,
)


class Built(NamedTuple):
    """A model, its structure written by hand, and the inputs it would be traced with."""

    model: nn.Module
    structure: Structure
    example: Tensor


class Block(nn.Module):
    """Residual block: relu of the input plus conv-bn-relu-conv-bn."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


class ConvNet(nn.Module):
    """Two convolutions with batch norm, pooling, one linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 5, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(5)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.fc(x.mean(dim=(2, 3)))


class ResNet(nn.Module):
    """Stem, two residual blocks, pooling, one linear head.

    The stem ends in a relu, so what enters a block is never negative and `relu(x + 0) == x`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.bn0 = nn.BatchNorm2d(4)
        self.block1 = Block(4, 3)
        self.block2 = Block(4, 5)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn0(self.conv0(x)))
        return self.fc(self.block2(self.block1(x)).mean(dim=(2, 3)))


def mlp() -> Built:
    """Linear(6,5)-ReLU-Linear(5,4)-ReLU-Linear(4,3): families ``0`` and ``2``, no layer."""
    model = _seeded(
        lambda: nn.Sequential(
            nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)
        )
    )
    families = (
        _family("0", "neuron", 5, [("0.weight", 0), ("0.bias", 0)], [("2.weight", 1)]),
        _family("2", "neuron", 4, [("2.weight", 0), ("2.bias", 0)], [("4.weight", 1)]),
    )
    first, second = _width(0), _width(1)
    batch = 2
    macs = [Term(batch * 6, (first,)), Term(batch, (first, second)), Term(batch * 3, (second,))]
    params = [
        Term(6 + 1, (first,)),
        Term(1, (first, second)),
        Term(1 + 3, (second,)),
        Term(3),
    ]
    return _built(model, families, (), macs, params, _noise(batch, 6))


def convnet() -> Built:
    """conv(3,4)-bn-relu-conv(4,5)-bn-relu-pool-linear(5,3): families ``conv1``, ``conv2``."""
    model = _seeded(ConvNet)
    families = (
        _family(
            "conv1",
            "filter",
            4,
            [("conv1.weight", 0), *_norm("bn1")],
            [("conv2.weight", 1)],
        ),
        _family("conv2", "filter", 5, [("conv2.weight", 0), *_norm("bn2")], [("fc.weight", 1)]),
    )
    first, second = _width(0), _width(1)
    batch, places = 2, 6 * 6
    macs = [
        Term(batch * places * 27, (first,)),
        Term(batch * places * 9, (first, second)),
        Term(batch * 3, (second,)),
    ]
    params = [
        Term(27 + 2, (first,)),
        Term(9, (first, second)),
        Term(2 + 3, (second,)),
        Term(3),
    ]
    return _built(model, families, (), macs, params, _noise(batch, 3, 6, 6))


def residual() -> Built:
    """Stem and two blocks: families ``conv0`` (stream), ``block1.conv1``, ``block2.conv1``.

    Layer ``block1`` leaves by replacing the whole block, ``block2`` by silencing its branch.
    """
    model = _seeded(ResNet)
    stream_made = [("conv0.weight", 0), *_norm("bn0")]
    stream_used = [("fc.weight", 1)]
    for block in ("block1", "block2"):
        stream_made += [(f"{block}.conv2.weight", 0), *_norm(f"{block}.bn2")]
        stream_used += [(f"{block}.conv1.weight", 1)]
    families = (
        _family("conv0", "channel", 4, stream_made, stream_used),
        _inner("block1", 3),
        _inner("block2", 5),
    )
    layers = (
        Layer(
            name="block1",
            closing=("block1.bn2.weight", "block1.bn2.bias"),
            tensors=_below(model, "block1"),
            stubs=(Stub(module="block1", kind="identity"),),
        ),
        Layer(
            name="block2",
            closing=("block2.bn2.weight", "block2.bn2.bias"),
            tensors=_below(model, "block2"),
            stubs=(
                Stub(module="block2.conv1", kind="identity"),
                Stub(module="block2.bn1", kind="identity"),
                Stub(module="block2.conv2", kind="identity"),
                Stub(module="block2.bn2", kind="zero"),
            ),
        ),
    )
    stream = _width(0)
    batch, places = 2, 6 * 6
    macs = [Term(batch * places * 27, (stream,)), Term(batch * 3, (stream,))]
    params = [Term(27 + 2 + 3, (stream,)), Term(3)]
    for layer in (0, 1):
        inner = _width(1 + layer)
        macs += [Term(batch * places * 18, (stream, inner), (layer,))]
        params += [
            Term(18, (stream, inner), (layer,)),
            Term(2, (inner,), (layer,)),
            Term(2, (stream,), (layer,)),
        ]
    return _built(model, families, layers, macs, params, _noise(batch, 3, 6, 6))


def _seeded(build) -> nn.Module:
    """Build with a fixed seed, then make every norm parameter and statistic differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 1.5)
    return model


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def _norm(name: str) -> list[tuple[str, int]]:
    return [(f"{name}.{entry}", 0) for entry in ("weight", "bias", "running_mean", "running_var")]


def _width(family: int) -> Factor:
    return Factor(0.0, ((family, 1.0),))


def _family(
    name: str,
    kind: str,
    units: int,
    made: Iterable[tuple[str, int]],
    used: Iterable[tuple[str, int]],
) -> Family:
    index = torch.arange(units).unsqueeze(1)
    members = [Member(tensor=t, axis=a, index=index, consumes=False) for t, a in made]
    members += [Member(tensor=t, axis=a, index=index, consumes=True) for t, a in used]
    return Family(name=name, kind=kind, num_units=units, members=tuple(members))


def _inner(block: str, units: int) -> Family:
    made = [(f"{block}.conv1.weight", 0), *_norm(f"{block}.bn1")]
    return _family(f"{block}.conv1", "filter", units, made, [(f"{block}.conv2.weight", 1)])


def _below(model: nn.Module, prefix: str) -> frozenset[str]:
    return frozenset(name for name in model.state_dict() if name.startswith(f"{prefix}."))


def _built(
    model: nn.Module,
    families: tuple[Family, ...],
    layers: tuple[Layer, ...],
    macs: list[Term],
    params: list[Term],
    example: Tensor,
) -> Built:
    parameters = {name for name, _ in model.named_parameters()}
    tensors = {
        name: TensorInfo(
            name=name,
            aliases=(name,),
            shape=tuple(value.shape),
            is_parameter=name in parameters,
        )
        for name, value in model.state_dict().items()
    }
    widths = [family.num_units for family in families]
    structure = Structure(
        families=families,
        layers=layers,
        fixed=(),
        tensors=tensors,
        cost=Cost(
            macs=Polynomial(macs, widths, len(layers)),
            params=Polynomial(params, widths, len(layers)),
        ),
        example=((example,), {}),
    )
    return Built(model, structure, example)
