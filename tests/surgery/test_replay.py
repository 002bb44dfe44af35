import copy
import re

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from secateur.errors import SurgeryError
from secateur.nn import Shortcut, SlimMultiheadAttention, Zero
from secateur.structure import Decision, Stub, trace
from secateur.surgery import Edit, cut_, replay_
from tests import structures


def described(model):
    """What a model is made of, apart from the values of its tensors."""
    return str(model), {name: tuple(t.shape) for name, t in model.state_dict().items()}


def cut_residual():
    built = structures.residual()
    live = built.structure.everything()
    for decision in (
        Decision(units={0: torch.tensor([1]), 2: torch.tensor([0, 3])}),
        Decision(layers=(0,)),
        Decision(units={0: torch.tensor([3])}),
    ):
        live, edit = cut_(built.model, built.structure, live, decision, proof=False)
    return built, edit


def test_a_fresh_model_becomes_the_one_that_was_cut():
    built, edit = cut_residual()
    fresh = structures.residual().model
    replay_(fresh, edit)
    assert described(fresh) == described(built.model)
    # Nothing was trained in between, so even the values are the same.
    assert_close(fresh.state_dict(), built.model.state_dict(), rtol=0, atol=0)
    assert_close(fresh(built.example), built.model(built.example))
    assert fresh._secateur_edit == edit


def test_a_model_on_the_meta_device_is_cut_without_memory():
    built, edit = cut_residual()
    with torch.device("meta"):
        fresh = structures.ResNet()
    replay_(fresh, edit)
    assert described(fresh) == described(built.model)
    assert all(tensor.is_meta for tensor in fresh.state_dict().values())
    fresh.load_state_dict(built.model.state_dict(), assign=True)
    assert_close(fresh(built.example), built.model(built.example))


def test_a_replayed_model_can_be_cut_further():
    built, edit = cut_residual()
    replay_(fresh := structures.residual().model, edit)
    structure = trace(fresh, built.example)
    stream = next(i for i, family in enumerate(structure.families) if family.name == "conv0")
    decision = Decision(units={stream: torch.tensor([0])})  # of units 0, 2, which are left
    _, further = cut_(fresh, structure, structure.everything(), decision)
    assert further.kept["conv0.weight"] == {0: (2,)}
    replay_(again := structures.residual().model, further)
    assert described(again) == described(fresh)


def test_heads_and_their_attention_are_replayed():
    def build():
        torch.manual_seed(0)
        return nn.TransformerEncoder(
            nn.TransformerEncoderLayer(12, 4, 16, batch_first=True, dropout=0.0), 2
        )

    model, example = build(), torch.randn(2, 5, 12)
    structure = trace(model, example)
    names = [family.name for family in structure.families]
    heads = [i for i, family in enumerate(structure.families) if family.kind == "head"]
    assert heads, names
    decision = Decision(units={heads[0]: torch.tensor([1])})
    _, edit = cut_(model, structure, structure.everything(), decision)
    assert edit.attentions == ("layers.0.self_attn",)
    replay_(fresh := build(), edit)
    assert type(fresh.layers[0].self_attn) is SlimMultiheadAttention
    assert type(fresh.layers[1].self_attn) is nn.MultiheadAttention
    assert_close(fresh.eval()(example), model.eval()(example))


def test_a_model_is_cut_once():
    built, edit = cut_residual()
    with pytest.raises(SurgeryError, match="This ResNet was cut before, but an edit counts"):
        replay_(built.model, edit)


@pytest.mark.parametrize(
    ("edit", "fact"),
    [
        (Edit(kept={"fc.bais": {0: (0,)}}), "it cuts tensor 'fc.bais', which the model does not"),
        (Edit(kept={"fc.bias": {1: (0,)}}), "it cuts axis 1 of tensor 'fc.bias', whose shape is"),
        (
            Edit(kept={"fc.bias": {0: (0, 3)}}),
            "the positions it keeps on axis 0 of tensor 'fc.bias'",
        ),
        (Edit(kept={"fc.bias": {0: (1, 0)}}), "(3,), are not ascending positions of that axis"),
        (Edit(kept={"fc.bias": {0: ()}}), "(3,), are not ascending positions of that axis"),
        (Edit(attributes={"fe": {"in_features": 1}}), "it changes module 'fe', which the model"),
        (Edit(attributes={"fc": {"forward": 1}}), "it sets 'forward' of module 'fc', which is no"),
        (Edit(attributes={"fc": {"training": 1}}), "it sets 'training' of module 'fc', which is"),
        (Edit(attributes={"fc": {"in_features": (1,)}}), "it sets 'in_features' of module 'fc'"),
        (Edit(attentions=("fc",)), "it makes 'fc' slim, which is no nn.MultiheadAttention"),
        (Edit(stubs=(Stub(module="block3", kind="zero"),)), "it replaces module 'block3', which"),
        (Edit(stubs=(Stub(module="", kind="zero"),)), "it replaces module '', which the model"),
    ],
)
def test_an_edit_that_does_not_fit_is_refused(edit, fact):
    model = structures.residual().model
    before = described(copy.deepcopy(model))
    with pytest.raises(SurgeryError, match=re.escape(fact)):
        replay_(model, edit)
    assert described(model) == before


@pytest.mark.parametrize(
    ("stub", "message"),
    [
        (Stub(module="block1", kind="exit"), "Module 'block1' cannot become 'exit': expected"),
        (
            Stub(module="block1", kind="shortcut", children=("conv1", "conv9")),
            "Module 'block1' cannot become a shortcut through its child 'conv9': it has none of",
        ),
    ],
)
def test_a_stand_in_that_cannot_be_made_leaves_the_model_as_it_was(stub, message):
    model = structures.residual().model
    edit = Edit(
        kept={"fc.bias": {0: (0, 2)}},
        attributes={"fc": {"out_features": 2}},
        stubs=(Stub(module="block2", kind="zero"), stub),
    )
    before = described(copy.deepcopy(model))
    with pytest.raises(SurgeryError, match=re.escape(message)):
        replay_(model, edit)
    assert described(model) == before
    assert not hasattr(model, "_secateur_edit")


def test_stand_ins_of_all_kinds_are_replayed():
    model = structures.residual().model
    block = model.block1
    replay_(
        model,
        Edit(
            stubs=(
                Stub(module="block1", kind="shortcut", children=("bn2", "@relu")),
                Stub(module="block2.bn2", kind="zero", output=(0, 2)),
                Stub(module="block2.conv1", kind="identity"),
            )
        ),
    )
    assert isinstance(model.block1, Shortcut)
    assert model.block1.bn2 is block.bn2
    assert [type(child) for child in model.block1.children()] == [nn.BatchNorm2d, nn.ReLU]
    assert isinstance(model.block2.bn2, Zero)
    assert model.block2.bn2.output == (0, 2)
    x = torch.randn(2, 4)
    assert model.block2.conv1(x) is x
