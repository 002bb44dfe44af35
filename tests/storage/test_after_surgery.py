"""Models that surgery really cut, saved and loaded between removals."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from secateur.errors import StorageError
from secateur.gates import Gates
from secateur.nn import SlimMultiheadAttention
from secateur.storage import export, load, save
from secateur.structure import Decision, Live, Structure, trace
from secateur.surgery import cut_
from tests.storage.saves import assert_same_bits, saved
from tests.structures import Built, ConvNet, ResNet, convnet, residual

# Structures made by hand hold no evidence for a proof.
without_proof = partial(cut_, proof=False)


def assert_same_network(first: nn.Module, second: nn.Module, x: Tensor) -> None:
    """Compare tensors, records and outputs to the bit, in both modes."""
    assert_same_bits(first, second)
    assert repr(first) == repr(second)
    assert vars(first).get("_secateur_edit") == vars(second).get("_secateur_edit")
    for training in (False, True):
        outputs = [copy.deepcopy(model).train(training)(x) for model in (first, second)]
        assert torch.equal(*outputs)


def test_a_network_cut_twice_comes_back_and_can_be_cut_again(tmp_path: Path) -> None:
    model, structure, x = residual()
    live = structure.everything()
    first = Decision(units={0: torch.tensor([1]), 1: torch.tensor([0, 2])}, layers=(1,))
    live, _ = without_proof(model, structure, live, first)
    live, edit = without_proof(model, structure, live, Decision(units={0: torch.tensor([3])}))
    assert edit.kept["conv0.weight"] == {0: (0, 2)}

    back = load(ResNet, saved(model, tmp_path))
    assert_same_network(back, model, x)

    third = Decision(layers=(0,))
    without_proof(model, structure, live, third)
    without_proof(back, structure, live, third)
    assert_same_network(back, model, x)
    assert_same_network(load(ResNet, saved(back, tmp_path)), model, x)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_removals_come_back(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    make, build = data.draw(st.sampled_from([(residual, ResNet), (convnet, ConvNet)]))
    model, structure, x = make()
    live = structure.everything()
    for _ in range(data.draw(st.integers(1, 3))):
        live, _ = without_proof(model, structure, live, some_decision(data, structure, live))
    back = load(build, saved(model, tmp_path_factory.mktemp("save")))
    assert_same_network(back, model, x)


def some_decision(data: st.DataObject, structure: Structure, live: Live) -> Decision:
    units = {}
    for family, mask in enumerate(live.units):
        left = mask.nonzero().flatten().tolist()
        gone = data.draw(st.lists(st.sampled_from(left), unique=True, max_size=len(left) - 1))
        units[family] = torch.tensor(sorted(gone), dtype=torch.int64)
    layers = [layer for layer in range(structure.num_layers) if data.draw(st.booleans())]
    return Decision(units=units, layers=tuple(n for n in layers if live.layers[n]))


def encoder() -> nn.Module:
    return nn.TransformerEncoderLayer(8, 4, 12, dropout=0.0, batch_first=True)


def tied() -> nn.Module:
    sizes = [(6, 5), (5, 5), (5, 5), (5, 2)]
    model = nn.Sequential(*(part for size in sizes for part in (nn.Linear(*size), nn.ReLU())))
    model[4].weight = model[2].weight
    return model


def hidden_statistics() -> nn.Module:
    """Batch norm whose statistics `state_dict` leaves out."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        model[1]._non_persistent_buffers_set.add(name)
    model[1].running_mean.normal_()
    return model


TRACED = {
    "attention": (encoder, torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))),
    "ties": (tied, torch.randn(3, 6, generator=torch.Generator().manual_seed(0))),
    "hidden statistics": (
        hidden_statistics,
        torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)),
    ),
}


@pytest.mark.parametrize(("build", "x"), TRACED.values(), ids=TRACED.keys())
def test_traced_networks_come_back_without_the_first_unit_of_every_family(
    build: Callable[[], nn.Module], x: Tensor, tmp_path: Path
) -> None:
    model = build()
    structure = trace(model, x)
    families = [n for n, family in enumerate(structure.families) if family.num_units > 1]
    assert families
    first = torch.tensor([0])
    cut_(model, structure, structure.everything(), Decision(units=dict.fromkeys(families, first)))
    back = load(build, saved(model, tmp_path))
    assert_same_network(back, model, x)


@pytest.mark.parametrize("layer", [0, 1])
def test_traced_networks_come_back_without_a_layer(layer: int, tmp_path: Path) -> None:
    """A block becomes a shortcut that ends in the ReLU which the block called as a function."""
    model, _, x = residual()
    structure = trace(model, x)
    cut_(model, structure, structure.everything(), Decision(layers=(layer,)))
    assert "Shortcut" in repr(model)
    assert_same_network(load(ResNet, saved(model, tmp_path)), model, x)


def test_attention_that_lost_a_head_comes_back_slim(tmp_path: Path) -> None:
    model, x = encoder(), TRACED["attention"][1]
    structure = trace(model, x)
    heads = [n for n, family in enumerate(structure.families) if family.kind == "head"]
    decision = Decision(units={heads[0]: torch.tensor([1, 3])})
    cut_(model, structure, structure.everything(), decision)
    back = load(encoder, saved(model, tmp_path))
    assert isinstance(back.self_attn, SlimMultiheadAttention)
    assert back.self_attn.out_proj.weight.shape == (8, 4)  # two heads of two left
    assert_same_network(back, model, x)


@pytest.mark.parametrize(("make", "build"), [(convnet, ResNet), (residual, ConvNet)])
def test_a_cut_network_is_not_loaded_into_another_one(
    make: Callable[[], Built], build: Callable[[], nn.Module], tmp_path: Path
) -> None:
    model, structure, _ = make()
    without_proof(model, structure, structure.everything(), Decision(units={0: torch.tensor([0])}))
    save(model, tmp_path)
    with pytest.raises(StorageError, match=r"^The edit in .* does not fit the model that build_mo"):
        load(build, tmp_path)


@torch.no_grad()
def test_weights_hidden_by_gates_are_stored_and_exported_with_their_values(tmp_path: Path) -> None:
    """Between a forward and the update, hidden weights are zero in the model and in no file."""
    model, structure, x = residual()
    expected = ResNet()
    expected.load_state_dict(model.state_dict())
    gates = Gates(model, structure, structure.everything())

    def restore(module: nn.Module, state: dict[str, Tensor], prefix: str, _: object) -> None:
        state.update({prefix + name: value for name, value in gates.restored().items()})

    model.register_state_dict_post_hook(restore)
    off = torch.zeros(structure.num_units, dtype=torch.bool)
    gates.close_(off, torch.ones(structure.num_layers, dtype=torch.bool))
    assert not model.fc.weight.any()

    assert_same_bits(load(ResNet, saved(model, tmp_path)), expected)
    program = torch.export.load(export(model, x, tmp_path / "net.pt2", to="pt2"))
    torch.testing.assert_close(program.module()(x), expected.eval()(x))
    assert not model.fc.weight.any(), "saving leaves the training as it is"


@torch.no_grad()
def test_a_cut_network_is_exported_as_it_is(tmp_path: Path) -> None:
    model, structure, x = residual()
    decision = Decision(units={0: torch.tensor([1]), 2: torch.tensor([0, 2])}, layers=(0,))
    without_proof(model, structure, structure.everything(), decision)
    program = torch.export.load(export(model, x, tmp_path / "net.pt2", to="pt2"))
    assert torch.equal(program.module()(x), model.eval()(x))
    assert program.state_dict["conv0.weight"].shape == (3, 3, 3, 3)
