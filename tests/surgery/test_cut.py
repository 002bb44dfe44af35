import copy
import re

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from secateur.errors import MiswiredError, SurgeryError
from secateur.nn import Shortcut, Zero
from secateur.structure import Decision, Live, Stub, TensorInfo, trace
from secateur.surgery import Edit, cut_
from tests import structures

EXACT = {"rtol": 0.0, "atol": 1e-10}


def units(**numbers):
    return {int(family[1:]): torch.tensor(gone) for family, gone in numbers.items()}


def silenced(built, live):
    """Zero, by hand, what carries the gone units on and the norms that end the gone layers."""
    model = copy.deepcopy(built.model)
    for family, mask in zip(built.structure.families, live.units, strict=True):
        for member in (member for member in family.members if member.consumes):
            for gone in member.index[~mask].flatten().tolist():
                model.get_parameter(member.tensor).data.select(member.axis, gone).zero_()
    for layer, alive in zip(built.structure.layers, live.layers.tolist(), strict=True):
        for name in layer.closing if not alive else ():
            model.get_parameter(name).data.zero_()
    return model


def assert_same_outputs(small, whole, example):
    for training in (False, True):
        one, other = copy.deepcopy(small).train(training), copy.deepcopy(whole).train(training)
        assert_close(one(example.double()), other(example.double()), **EXACT)


@pytest.mark.parametrize(
    ("build", "decision"),
    [
        (structures.mlp, Decision(units=units(f0=[1, 3], f1=[0]))),
        (structures.convnet, Decision(units=units(f0=[0], f1=[1, 2, 4]))),
        (structures.residual, Decision(units=units(f0=[1, 2], f1=[0], f2=[1, 3, 4]))),
        (structures.residual, Decision(layers=(0,))),
        (structures.residual, Decision(layers=(1,))),
        (structures.residual, Decision(units=units(f0=[3], f1=[2], f2=[0]), layers=(0, 1))),
    ],
)
def test_the_smaller_model_computes_what_the_masked_one_does(build, decision):
    built = build()
    built.model.double()
    small = copy.deepcopy(built.model)
    everything = built.structure.everything()
    live, _ = cut_(small, built.structure, everything, decision, proof=False)
    assert_same_outputs(small, silenced(built, live), built.example)
    sizes = sum(p.numel() for p in small.parameters())
    assert sizes == built.structure.cost.params.value(live.counts, live.layers)


def test_removals_one_after_the_other_count_in_positions_of_the_traced_model():
    built = structures.residual()
    built.model.double()
    small = copy.deepcopy(built.model)
    live = built.structure.everything()
    for decision in (
        Decision(units=units(f0=[0], f2=[1])),
        Decision(units=units(f0=[2], f2=[4])),
        Decision(layers=(1,)),
        Decision(units=units(f0=[1], f2=[0, 2])),
    ):
        live, edit = cut_(small, built.structure, live, decision, proof=False)
        assert_same_outputs(small, silenced(built, live), built.example)
    assert small.fc.weight.shape == (3, 1)
    assert edit.kept["fc.weight"] == {1: (3,)}
    assert edit.kept["conv0.weight"] == {0: (3,)}
    assert "block2.conv1.weight" not in edit.kept
    assert small._secateur_edit is edit


def test_one_cut_equals_many():
    one, many = structures.convnet(), structures.convnet()
    everything = one.structure.everything()
    _, at_once = cut_(
        one.model, one.structure, everything, Decision(units=units(f0=[0, 2], f1=[3])), proof=False
    )
    live = everything
    for decision in (units(f0=[2]), units(f1=[3]), units(f0=[0])):
        live, edit = cut_(many.model, many.structure, live, Decision(units=decision), proof=False)
    assert edit == at_once
    assert_close(one.model.state_dict(), many.model.state_dict(), rtol=0, atol=0)


def test_the_model_its_parameters_and_buffers_stay_the_same_objects():
    model, structure, _ = structures.convnet()
    model.conv2.weight.requires_grad_(False)
    objects = {name: id(t) for name, t in model.state_dict(keep_vars=True).items()}
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    seen = []
    model.conv1.register_forward_hook(lambda *_: seen.append("hook"))
    decision = Decision(units=units(f0=[0], f1=[1]))
    cut_(model, structure, structure.everything(), decision, proof=False)
    assert {name: id(t) for name, t in model.state_dict(keep_vars=True).items()} == objects
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    model(torch.randn(2, 3, 6, 6)).sum().backward()
    assert seen == ["hook"]
    assert model.conv1.weight.grad.shape == (3, 3, 3, 3)


def test_stored_sizes_follow():
    model, structure, _ = structures.convnet()
    decision = Decision(units=units(f0=[0], f1=[1, 2]))
    _, edit = cut_(model, structure, structure.everything(), decision, proof=False)
    assert str(model.conv2) == "Conv2d(3, 3, kernel_size=(3, 3), stride=(1, 1), " + (
        "padding=(1, 1), bias=False)"
    )
    assert (model.bn1.num_features, model.bn2.num_features) == (3, 3)
    assert model.fc.in_features == 3
    assert edit.attributes["conv2"] == {"out_channels": 3, "in_channels": 3}


def test_a_layer_leaves_by_a_stand_in_and_its_modules_are_gone():
    model, structure, example = structures.residual()
    _, edit = cut_(model, structure, structure.everything(), Decision(layers=(0, 1)), proof=False)
    assert isinstance(model.block1, Shortcut)
    assert isinstance(model.block2.bn2, Zero)
    assert isinstance(model.block2.conv1, Shortcut)
    assert not any(name.startswith("block") for name in model.state_dict())
    assert [stub.module for stub in edit.stubs] == [
        "block1",
        "block2.conv1",
        "block2.bn1",
        "block2.conv2",
        "block2.bn2",
    ]
    assert model(example).shape == (2, 3)


def test_a_stand_in_takes_the_place_in_a_sequential_and_keeps_the_mode():
    blocks = nn.Sequential(*[structures.Block(4, 3) for _ in range(3)]).eval()
    structure = trace(blocks, torch.randn(1, 4, 5, 5))
    assert [layer.name for layer in structure.layers] == ["0", "1", "2"]
    cut_(blocks, structure, structure.everything(), Decision(layers=(1,)))
    assert isinstance(blocks[1], Shortcut)
    assert not any(module.training for module in blocks.modules())
    assert len(blocks) == 3


class Downsampling(nn.Module):
    """The block keeps a child of its own beside the branch."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.downsample = nn.Conv2d(4, 6, 1, stride=2)

    def forward(self, x):
        return torch.relu(self.conv(x) + self.downsample(x))


def test_a_shortcut_keeps_the_child_objects_under_their_names():
    torch.manual_seed(0)
    model = nn.Sequential(Downsampling(), nn.Flatten(), nn.Linear(6 * 9, 2)).double()
    example = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    structure = trace(model, example)
    layer = next(layer for layer in structure.layers if "0.conv.weight" in layer.closing)
    child, weight = model[0].downsample, model[0].downsample.weight
    whole = copy.deepcopy(model)
    nn.init.zeros_(whole[0].conv.weight), nn.init.zeros_(whole[0].conv.bias)
    number = structure.layers.index(layer)
    cut_(model, structure, structure.everything(), Decision(layers=(number,)))
    assert model[0].downsample is child
    assert model.get_parameter("0.downsample.weight") is weight
    assert_close(model(example), whole(example), **EXACT)


def test_tied_tensors_are_cut_once_and_stay_tied():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 5, bias=False)
            self.again = nn.Linear(4, 5, bias=False)
            self.again.weight = self.first.weight
            self.last = nn.Linear(5, 2)

        def forward(self, x):
            return self.last(torch.relu(self.first(x)) + torch.tanh(self.again(x)))

    model, example = Tied().double(), torch.randn(3, 4, dtype=torch.float64)
    structure = trace(model, example)
    whole = copy.deepcopy(model)
    whole.last.weight.data[:, [1, 2]] = 0.0
    cut_(model, structure, structure.everything(), Decision(units={0: torch.tensor([1, 2])}))
    assert model.again.weight is model.first.weight
    assert (model.first.out_features, model.again.out_features) == (3, 3)
    assert_close(model(example), whole(example), **EXACT)


def test_copies_shrink_along():
    model, structure, example = structures.convnet()
    plain = copy.deepcopy(model)
    average = torch.optim.swa_utils.AveragedModel(model)
    decision = Decision(units=units(f0=[0], f1=[1]))
    cut_(
        model,
        structure,
        structure.everything(),
        decision,
        extra_models=[plain, average],
        proof=False,
    )
    assert_close(plain.state_dict(), model.state_dict())
    average.update_parameters(model)
    assert_close(average(example), model(example))
    assert plain._secateur_edit == average.module._secateur_edit == model._secateur_edit


def test_a_copy_that_is_none_is_refused():
    model, structure, _ = structures.convnet()
    with pytest.raises(SurgeryError, match=r"^The extra model of type Linear is no copy of the"):
        cut_(
            model,
            structure,
            structure.everything(),
            Decision(units=units(f0=[0])),
            extra_models=[nn.Linear(2, 2)],
        )
    assert model.conv1.out_channels == 4


def test_gradients_after_a_cut_equal_those_of_the_masked_model():
    built = structures.residual()
    built.model.double()
    small = copy.deepcopy(built.model)
    decision = Decision(units=units(f0=[1], f1=[0], f2=[2, 3]), layers=(0,))
    live, edit = cut_(small, built.structure, built.structure.everything(), decision, proof=False)
    whole = silenced(built, live)
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    for model in (small, whole):
        (model(built.example.double()) * direction).sum().backward()
    for name, parameter in small.named_parameters():
        expected = whole.get_parameter(name).grad
        for axis, kept in edit.kept.get(name, {}).items():
            expected = expected.index_select(axis, torch.tensor(kept))
        assert_close(parameter.grad, expected, **EXACT)


def test_tensors_that_a_forward_stored_for_the_next_one_are_forgotten():
    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 2)
            self.cache, self.settings = {}, {"depth": 2}

        def forward(self, x):
            if "bias" not in self.cache:
                self.cache["bias"] = self.first.bias * 2
            return self.last(torch.relu(self.first(x) + self.cache["bias"]))

    model, example = Caching(), torch.randn(3, 4)
    structure = trace(model, example)
    model(example)
    cut_(model, structure, structure.everything(), Decision(units={0: torch.tensor([1, 2])}))
    assert model.settings == {"depth": 2}
    assert model(example).shape == (3, 2)
    assert model.cache["bias"].shape == (3,)


def snapshot(model, optimizer):
    tensors = model.state_dict(keep_vars=True)
    exact = {
        "classes": {path: type(module) for path, module in model.named_modules()},
        "modules": {path: id(module) for path, module in model.named_modules()},
        "attributes": {
            path: {k: v for k, v in vars(module).items() if isinstance(v, (int, tuple, Edit))}
            for path, module in model.named_modules()
        },
        "objects": {name: id(tensor) for name, tensor in tensors.items()},
        "gradients": {name: id(p.grad) for name, p in model.named_parameters()},
        "groups": [[id(p) for p in group["params"]] for group in optimizer.param_groups],
    }
    gradients = [p.grad for p in model.parameters()]
    return exact, copy.deepcopy((model.state_dict(), gradients, optimizer.state_dict()))


@pytest.mark.parametrize("earlier", [False, True])
def test_a_proof_that_fails_leaves_everything_as_it_was(monkeypatch, earlier):
    built = structures.residual()
    model, structure = built.model, built.structure
    optimizer = torch.optim.AdamW(model.parameters())
    model(built.example).square().sum().backward()
    optimizer.step()
    live = structure.everything()
    if earlier:
        decision = Decision(units=units(f0=[1], f2=[0]))
        live, _ = cut_(model, structure, live, decision, optimizers=[optimizer], proof=False)
    exact, values = snapshot(model, optimizer)

    def refuse(model, structure, live):
        assert not isinstance(model.block1, structures.Block)
        raise MiswiredError("wired wrongly")

    monkeypatch.setattr("secateur.surgery._cut.prove", refuse)
    decision = Decision(units=units(f0=[0], f1=[0], f2=[3]), layers=(0, 1))
    with pytest.raises(MiswiredError, match=r"^wired wrongly$"):
        cut_(model, structure, live, decision, optimizers=[optimizer])
    exact_after, values_after = snapshot(model, optimizer)
    assert exact_after == exact
    assert_close(values_after, values, rtol=0, atol=0)
    model(built.example).square().sum().backward()
    optimizer.step()


def test_the_proof_sees_the_smaller_model_and_what_is_left(monkeypatch):
    built = structures.convnet()
    seen = []
    monkeypatch.setattr("secateur.surgery._cut.prove", lambda *given: seen.append(given))
    live, _ = cut_(
        built.model,
        built.structure,
        built.structure.everything(),
        Decision(units=units(f0=[0])),
    )
    (model, structure, proved) = seen[0]
    assert model is built.model
    assert structure is built.structure
    assert proved is live
    assert proved.counts.tolist() == [3, 5]


def test_an_empty_decision_changes_nothing():
    model, structure, _ = structures.convnet()
    everything = structure.everything()
    before = copy.deepcopy(model.state_dict())
    live, edit = cut_(model, structure, everything, Decision(units=units(f0=[])))
    assert live is everything
    assert edit == Edit()
    assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("decision", "message"),
    [
        (
            Decision(units=units(f2=[0])),
            "The decision removes units of family 2, but the structure has 2 families. "
            "Use indices of structure.families.",
        ),
        (
            Decision(units=units(f0=[1, 4, -1])),
            "The decision removes units [4, -1] of family 'conv1', which was traced with units 0 "
            "to 3. Use unit numbers of the traced model.",
        ),
        (
            Decision(units=units(f0=[1, 0])),
            "The decision removes units [0] of family 'conv1', which are gone already. "
            "Decide about what `live` says is left.",
        ),
        (
            Decision(units=units(f0=[1, 2, 3])),
            "The decision removes 3 of the 3 units that are left of family 'conv1', but 1 must "
            "stay for the model to run. Leave out 1, or remove the layer that the family is in.",
        ),
        (
            Decision(layers=(0,)),
            "The decision removes layer 0, but the structure has 0 layers. "
            "Use indices of structure.layers.",
        ),
    ],
)
def test_a_decision_that_cannot_be_carried_out_says_why(decision, message):
    model, structure, _ = structures.convnet()
    first = Decision(units=units(f0=[0]))
    live, _ = cut_(model, structure, structure.everything(), first, proof=False)
    with pytest.raises(SurgeryError, match=f"^{re.escape(message)}$"):
        cut_(model, structure, live, decision)


def test_a_layer_that_is_gone_cannot_go_again():
    model, structure, _ = structures.residual()
    decision = Decision(layers=(1,))
    live, _ = cut_(model, structure, structure.everything(), decision, proof=False)
    with pytest.raises(SurgeryError, match=r"^The decision removes layer 'block2', which is gone"):
        cut_(model, structure, live, decision)


def test_a_model_in_another_state_is_refused():
    model, structure, _ = structures.convnet()
    everything = structure.everything()
    cut_(model, structure, everything, Decision(units=units(f0=[0])), proof=False)
    message = (
        "Tensor conv1.weight has 3 positions on axis 0, expected 4 by what `live` says is left. "
        "Pass the model the structure was traced from, and the `live` that the last removal "
        "returned."
    )
    with pytest.raises(SurgeryError, match=f"^{re.escape(message)}$"):
        cut_(model, structure, everything, Decision(units=units(f0=[1])))


def test_a_model_without_the_tensor_or_module_is_refused():
    _, structure, _ = structures.residual()
    with pytest.raises(SurgeryError, match=r"^Tensor conv0.weight is not in the model, expected 4"):
        cut_(nn.Identity(), structure, structure.everything(), Decision(units=units(f0=[0])))
    with pytest.raises(SurgeryError, match=r"^Layer 'block1' cannot go: the model has no module"):
        cut_(nn.Identity(), structure, structure.everything(), Decision(layers=(0,)))


def test_units_inside_a_removed_layer_may_still_be_removed():
    model, structure, example = structures.residual()
    live, _ = cut_(model, structure, structure.everything(), Decision(layers=(0,)), proof=False)
    live, edit = cut_(model, structure, live, Decision(units=units(f1=[0])), proof=False)
    assert not edit.kept
    assert model(example).shape == (2, 3)


def test_a_tensor_that_loses_its_first_name_with_a_layer_is_recorded_under_the_next():
    """block1.conv2.weight is tied to `other`, so it outlives the block."""
    built = structures.residual()
    model, structure = built.model, built.structure
    model.other = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    model.other.weight = model.block1.conv2.weight
    name = "block1.conv2.weight"
    info = TensorInfo(
        name=name, aliases=(name, "other.weight"), shape=(4, 3, 3, 3), is_parameter=True
    )
    layer = structure.layers[0]
    kept_layer = type(layer)(
        name=layer.name, closing=layer.closing, tensors=layer.tensors - {name}, stubs=layer.stubs
    )
    structure = type(structure)(
        families=structure.families,
        layers=(kept_layer, structure.layers[1]),
        fixed=(),
        tensors={**structure.tensors, name: info},
        cost=structure.cost,
        example=structure.example,
    )
    live = structure.everything()
    live, edit = cut_(model, structure, live, Decision(units=units(f0=[1])), proof=False)
    assert edit.kept[name] == {0: (0, 2, 3)}
    live, edit = cut_(model, structure, live, Decision(layers=(0,)), proof=False)
    assert name not in edit.kept
    assert edit.kept["other.weight"] == {0: (0, 2, 3)}
    live, edit = cut_(model, structure, live, Decision(units=units(f0=[0])), proof=False)
    assert edit.kept["other.weight"] == {0: (2, 3)}
    assert model.other.weight.shape == (2, 3, 3, 3)


def test_positions_count_through_a_second_trace():
    """The edit stays one of the model that was built, though the structure is of a smaller one."""
    torch.manual_seed(0)
    built = structures.mlp()
    small = built.model
    first = trace(small, built.example)
    cut_(small, first, first.everything(), Decision(units=units(f0=[0, 3])))  # 1, 2, 4 stay
    second = trace(small, built.example)
    _, edit = cut_(small, second, second.everything(), Decision(units=units(f0=[1])))
    assert edit.kept["0.weight"] == {0: (1, 4)}
    assert_close(small[0].weight, structures.mlp().model[0].weight[[1, 4]])


def test_a_layer_whose_module_is_the_model_itself_is_refused():
    model, structure, _ = structures.residual()
    layer = structure.layers[0]
    root = type(layer)(
        name="", closing=layer.closing, tensors=layer.tensors, stubs=(Stub(module="", kind="zero"),)
    )
    structure = type(structure)(
        families=structure.families,
        layers=(root,),
        fixed=(),
        tensors=structure.tensors,
        cost=structure.cost,
        example=structure.example,
    )
    live = Live(units=structure.everything().units, layers=torch.ones(1, dtype=torch.bool))
    with pytest.raises(SurgeryError, match=r"^Module '' cannot be replaced"):
        cut_(model, structure, live, Decision(layers=(0,)))
