from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from secateur.errors import StorageError
from secateur.storage import load, save
from tests.storage.saves import rewrite_structure


class Net(nn.Module):
    """Has attributes of many kinds for an edit to reach for."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.LayerNorm((2, 4))
        self.block = nn.Sequential(nn.ReLU())
        self.text = "text"
        self.numbers = [1, 2]
        self.flags = (True, True)

    @property
    def width(self) -> int:
        return 4


def attribute(module: str, name: str, value: object) -> dict[str, Any]:
    return {"attributes": {module: {name: value}}}


def stub(module: str, *children: str) -> dict[str, Any]:
    return {"stubs": [{"module": module, "kind": "shortcut", "children": children}]}


def size(module: str, name: str) -> str:
    return (
        f"attribute {name!r} of module {module!r} is no whole number or tuple of them, so it "
        "cannot be set"
    )


MISFITS = {
    "module": (attribute("gone", "x", 1), "module 'gone' does not exist in it"),
    "stub": (stub("linear.gone"), "module 'linear.gone' does not exist in it"),
    "child": (stub("block", "forward"), "module 'block' has no child 'forward'"),
    "attention": ({"attentions": ["linear"]}, "module 'linear' is no nn.MultiheadAttention"),
    "method": (attribute("linear", "forward", 1), size("linear", "forward")),
    "unknown attribute": (attribute("linear", "evil", 1), size("linear", "evil")),
    "class attribute": (attribute("linear", "dump_patches", 1), size("linear", "dump_patches")),
    "flag": (attribute("linear", "training", 1), size("linear", "training")),
    "parameter": (attribute("linear", "weight", 1), size("linear", "weight")),
    "parameters": (attribute("linear", "_parameters", 1), size("linear", "_parameters")),
    "property": (attribute("", "width", 1), size("", "width")),
    "text": (attribute("", "text", 1), size("", "text")),
    "list": (attribute("", "numbers", [1, 1]), size("", "numbers")),
    "flags": (attribute("", "flags", [1, 1]), size("", "flags")),
    "larger": (
        attribute("linear", "out_features", 5),
        "attribute 'out_features' of module 'linear' is 4 and cannot become 5",
    ),
    "tuple for number": (
        attribute("linear", "out_features", [4]),
        "attribute 'out_features' of module 'linear' is 4 and cannot become (4,)",
    ),
    "longer tuple": (
        attribute("norm", "normalized_shape", [2, 2, 2]),
        "attribute 'normalized_shape' of module 'norm' is (2, 4) and cannot become (2, 2, 2)",
    ),
    "larger tuple": (
        attribute("norm", "normalized_shape", [1, 5]),
        "attribute 'normalized_shape' of module 'norm' is (2, 4) and cannot become (1, 5)",
    ),
}


def refusal(edit: dict[str, Any], folder: Path) -> str:
    def change(content: dict[str, Any]) -> None:
        content["edit"].update(edit)

    save(Net(), folder)
    rewrite_structure(folder, change)
    with pytest.raises(StorageError) as caught:
        load(Net, folder)
    return str(caught.value)


@pytest.mark.parametrize(("edit", "fact"), MISFITS.values(), ids=MISFITS.keys())
def test_an_edit_that_reaches_too_far_is_refused(
    edit: dict[str, Any], fact: str, tmp_path: Path
) -> None:
    assert refusal(edit, tmp_path) == (
        f"The edit in {tmp_path / 'structure.json'} does not fit the model that build_model "
        f"returned: {fact}. Pass a build_model that builds the same model, at full size, as the "
        "one that was trained."
    )


def linear(*shape: int) -> nn.Module:
    model = nn.Linear(1, 1, bias=False)
    model.weight = nn.Parameter(torch.zeros(shape))
    return model


CUT = {
    "axis": ((4,), "tensor 'weight' [4] has no axis 1"),
    "position": ((4, 6), "tensor 'weight' [4, 6] has no position 6 on axis 1"),
}


@pytest.mark.parametrize(("shape", "fact"), CUT.values(), ids=CUT.keys())
def test_positions_outside_of_the_built_tensor_are_refused(
    shape: tuple[int, ...], fact: str, tmp_path: Path
) -> None:
    def change(content: dict[str, Any]) -> None:
        content["edit"]["kept"] = {"weight": {"1": "0-1,6"}}

    save(linear(4, 3), tmp_path)
    rewrite_structure(tmp_path, change)
    with pytest.raises(StorageError) as caught:
        load(lambda: linear(*shape), tmp_path)
    assert f"returned: {fact}. " in str(caught.value)


def test_a_cut_tensor_that_the_built_model_lacks_is_refused(tmp_path: Path) -> None:
    save(linear(4, 3), tmp_path)
    rewrite_structure(tmp_path, lambda c: c["edit"].update(kept={"weight": {"1": "0-2"}}))
    with pytest.raises(StorageError, match=r"returned: tensor 'weight' does not exist in it\."):
        load(nn.ReLU, tmp_path)
