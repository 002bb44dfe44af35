from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from secateur.errors import StorageError, UsageError
from secateur.storage import _structure_file as structure_file
from secateur.storage import load, save
from tests.storage.saves import rewrite_structure, saved, small, small_cut

ADVICE = "Fetch the folder again, or save the model again."


def refusal(folder: Path) -> str:
    with pytest.raises(StorageError) as caught:
        load(small, folder)
    return str(caught.value)


def damaged(path: Path, fact: str) -> str:
    return f"{path} is damaged or was not written by secateur.save(): {fact}. {ADVICE}"


def test_the_file_says_what_a_reader_wants_to_know(tmp_path: Path) -> None:
    content = json.loads((saved(small_cut(), tmp_path) / "structure.json").read_text())
    assert content["kind"] == "secateur structure"
    assert content["version"] == 1
    assert content["edit"] == {
        "kept": {"0.weight": {"0": "0,2"}, "0.bias": {"0": "0,2"}, "2.weight": {"1": "0,2"}},
        "stubs": [],
        "attributes": {"0": {"out_features": 2}, "2": {"in_features": 2}},
        "attentions": [],
    }
    assert content["tensors"]["0.weight"] == {
        "shape": [2, 3],
        "dtype": "float32",
        "is_parameter": True,
        "persistent": True,
        "aliases": [],
    }


def test_a_changed_word_is_noticed(tmp_path: Path) -> None:
    path = saved(small_cut(), tmp_path) / "structure.json"
    path.write_text(path.read_text().replace('"0,2"', '"0,3"'))
    assert refusal(tmp_path) == damaged(path, "its content does not match its checksum")


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"kind": "another"}', b'"text"'])
def test_json_of_somebody_else_is_refused(content: bytes, tmp_path: Path) -> None:
    path = saved(small(), tmp_path) / "structure.json"
    path.write_bytes(content)
    assert refusal(tmp_path) == (
        f"{path} was not written by secateur: it does not say that it is a 'secateur structure'. "
        "Give the folder that secateur.save() wrote to."
    )


@pytest.mark.parametrize(
    ("content", "fact"),
    [
        (b"", "it is not valid JSON: Expecting value: line 1 column 1 (char 0)"),
        (b"[NaN]", "it is not valid JSON: NaN is not a number of JSON"),
        (b"[" * 100_000, "it is not valid JSON: it nests deeper than 64 levels"),
    ],
)
def test_bytes_that_are_no_json_are_refused(content: bytes, fact: str, tmp_path: Path) -> None:
    path = saved(small(), tmp_path) / "structure.json"
    path.write_bytes(content)
    assert refusal(tmp_path) == damaged(path, fact)


def test_a_file_of_any_size_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(small(), tmp_path) / "structure.json"
    monkeypatch.setattr(structure_file, "MAX_BYTES", 100)
    assert refusal(tmp_path) == damaged(path, "it is larger than 100 bytes")


def test_a_newer_format_asks_for_an_update(tmp_path: Path) -> None:
    path = saved(small(), tmp_path) / "structure.json"
    rewrite_structure(tmp_path, lambda content: content.update(version=2))
    assert refusal(tmp_path) == (
        f"{path} has format version 2, and this secateur ({structure_file.secateur_version()}) "
        "reads up to 1. Update it: pip install --upgrade secateur."
    )


def edit(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["edit"].update(fields)


def tensor(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["tensors"]["0.weight"].update(fields)


def top(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.update(fields)


STUB = {"module": "1", "kind": "identity"}
PATH_RULE = "a path is made of names of modules and tensors, joined by dots (given: {!r})"
SLOT_RULE = "after its dot an attribute has the name of a field or a position (given: {!r})"
NAME_RULE = "an attribute is an identifier that does not start with '__' (given: {!r})"
VALUE_RULE = "an attribute is set to a whole number above 0 or a list of them (given: "
HOSTILE = {
    "unknown field": (top(code="x"), "'code': Extra inputs are not permitted (given: 'x')"),
    "true for 1": (top(version=True), "its version is True, expected 1"),
    "no version": (top(version=None), "its version is None, expected 1"),
    "digest": (
        top(sha256="../x"),
        "'sha256': String should match pattern '^[0-9a-f]{64}$' (given: '../x')",
    ),
    "kept backwards": (
        edit(kept={"0.weight": {"0": "2,1"}}),
        "'edit' > 'kept' > '0.weight' > '0': positions must ascend, and '1' does not "
        "(given: '2,1')",
    ),
    "kept by number": (
        edit(kept={"0.weight": {"0": [1, 2]}}),
        "'edit' > 'kept' > '0.weight' > '0': Input should be a valid string",
    ),
    "kept of a wrong axis": (
        edit(kept={"0.weight": {"-1": "1"}}),
        "'edit' > 'kept' > '0.weight' > '-1' > '[key]': String should match pattern "
        "'^(0|[1-9][0-9]?)$' (given: '-1')",
    ),
    "huge range": (
        edit(kept={"0.weight": {"0": "0-99999999999"}}),
        "its content: tensor '0.weight' [4, 3] cannot have kept 100000000000 positions of axis 0",
    ),
    "axis out of range": (
        edit(kept={"0.weight": {"2": "1"}}),
        "its content: tensor '0.weight' [4, 3] cannot have kept 1 positions of axis 2",
    ),
    "cut tensor that is not there": (
        edit(kept={"9.weight": {"0": "1"}}),
        "its content: tensor '9.weight' was cut, and is not listed",
    ),
    "stub of unknown kind": (
        edit(stubs=[STUB | {"kind": "python"}]),
        "'edit' > 'stubs' > 0 > 'kind': Input should be 'identity', 'zero' or 'shortcut' "
        "(given: 'python')",
    ),
    "stub of the root": (
        edit(stubs=[STUB | {"module": ""}]),
        "'edit' > 'stubs' > 0 > 'module': " + PATH_RULE.format(""),
    ),
    "stub through a dunder": (
        edit(stubs=[STUB | {"module": "0.__class__"}]),
        "'edit' > 'stubs' > 0 > 'module': " + PATH_RULE.format("0.__class__"),
    ),
    "stub of a method": (
        edit(stubs=[STUB | {"module": "0.forward"}]),
        "'edit' > 'stubs' > 0 > 'module': " + PATH_RULE.format("0.forward"),
    ),
    "stub output": (
        edit(stubs=[STUB | {"output": [1, 1]}]),
        "'edit' > 'stubs' > 0: output is (position, length) with position < length <= 64",
    ),
    "dunder attribute": (
        edit(attributes={"0": {"__class__": 1}}),
        "'edit' > 'attributes' > '0' > '__class__' > '[key]': " + NAME_RULE.format("__class__"),
    ),
    "attribute path": (
        edit(attributes={"0": {"a.b.c": 1}}),
        "'edit' > 'attributes' > '0' > 'a.b.c' > '[key]': " + SLOT_RULE.format("a.b.c"),
    ),
    "attribute before the first": (
        edit(attributes={"0": {"a.-1": 1}}),
        "'edit' > 'attributes' > '0' > 'a.-1' > '[key]': " + SLOT_RULE.format("a.-1"),
    ),
    "dunder field": (
        edit(attributes={"0": {"config.__class__": 1}}),
        "'edit' > 'attributes' > '0' > 'config.__class__' > '[key]': "
        + SLOT_RULE.format("config.__class__"),
    ),
    "field of a dunder": (
        edit(attributes={"0": {"__dict__.x": 1}}),
        "'edit' > 'attributes' > '0' > '__dict__.x' > '[key]': " + NAME_RULE.format("__dict__.x"),
    ),
    "attribute value": (
        edit(attributes={"0": {"forward": "os.system"}}),
        "'edit' > 'attributes' > '0' > 'forward': " + VALUE_RULE + "'os.system')",
    ),
    "attribute of nothing": (
        edit(attributes={"0": {"out_features": 0}}),
        "'edit' > 'attributes' > '0' > 'out_features': " + VALUE_RULE + "0)",
    ),
    "real attribute": (
        edit(attributes={"0": {"out_features": 1.0}}),
        "'edit' > 'attributes' > '0' > 'out_features': " + VALUE_RULE + "1.0)",
    ),
    "control characters": (
        edit(attentions=["\x1b[2J"]),
        "'edit' > 'attentions' > 0: " + PATH_RULE.format("\x1b[2J"),
    ),
    "dtype": (
        tensor(dtype="object"),
        "'tensors' > '0.weight' > 'dtype': a dtype is one of bool, uint8, int8, "
        "uint16, int16, uint32, int32, uint64, int64, float8_e4m3fn, float8_e5m2, float16, "
        "bfloat16, float32, float64, complex64 (given: 'object')",
    ),
    "negative size": (
        tensor(shape=[-4, 3]),
        "'tensors' > '0.weight' > 'shape' > 0: Input should be greater than or equal to 0 "
        "(given: -4)",
    ),
    "alias of another tensor": (
        tensor(aliases=["2.bias"]),
        "its content: tensor '2.bias' is listed twice",
    ),
    "whole number for a truth value": (
        tensor(is_parameter=1),
        "'tensors' > '0.weight' > 'is_parameter': Input should be a valid boolean (given: 1)",
    ),
}


@pytest.mark.parametrize(("change", "fact"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_structure_is_refused_with_what_is_wrong(
    change: Callable[[dict[str, Any]], object], fact: str, tmp_path: Path
) -> None:
    path = saved(small(), tmp_path) / "structure.json"
    rewrite_structure(tmp_path, change)
    assert refusal(tmp_path) == damaged(path, fact)


def test_what_load_would_refuse_is_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError) as caught:
        save(nn.ModuleDict({"a\nb": nn.Linear(2, 2)}), tmp_path)
    assert str(caught.value) == (
        "The model cannot be saved: in structure.json, 'tensors' > 'a\\nb.weight' > '[key]': a "
        "path is made of names of modules and tensors, joined by dots (given: 'a\\nb.weight'). "
        "Rename or change what is named there."
    )
    monkeypatch.setattr(structure_file, "MAX_BYTES", 100)
    with pytest.raises(UsageError, match=r"would have \d+ bytes, more than the 100 it may"):
        save(small(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_structure_is_named(tmp_path: Path) -> None:
    path = saved(small(), tmp_path) / "structure.json"
    path.unlink()
    assert refusal(tmp_path) == (
        f"{path} cannot be read: No such file or directory. "
        "Give the folder that secateur.save() wrote to."
    )


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "nothing"
    assert refusal(folder) == (
        f"{folder} holds no model.safetensors. Give the folder that secateur.save() wrote to."
    )


def test_files_of_two_models_do_not_go_together(tmp_path: Path) -> None:
    save(small(), tmp_path / "a")
    save(small(), tmp_path / "b")
    tensors, structure = tmp_path / "a/model.safetensors", tmp_path / "a/structure.json"
    expected = json.loads((tmp_path / "b/structure.json").read_text())["sha256"]
    found = json.loads(structure.read_text())["sha256"]
    (tmp_path / "b/structure.json").replace(structure)
    assert refusal(tmp_path / "a") == (
        f"{tensors} has SHA-256 {found}, and {structure} expects {expected}. One of the two files "
        "is damaged or belongs to another save; fetch both again, or save the model again."
    )


def test_a_tensor_of_another_shape_in_the_two_files_is_named(tmp_path: Path) -> None:
    save(small(), tmp_path / "a")
    save(small_cut(), tmp_path / "b")
    tensors, structure = tmp_path / "a/model.safetensors", tmp_path / "a/structure.json"
    (tmp_path / "b/structure.json").replace(structure)
    assert refusal(tmp_path / "a") == (
        f"Tensor '0.weight' is float32 [4, 3] in {tensors}, and {structure} expects float32 "
        "[2, 3]. One of the two files is damaged or belongs to another save; fetch both again, or "
        "save the model again."
    )


def test_a_tensor_of_another_dtype_in_the_two_files_is_named(tmp_path: Path) -> None:
    path = saved(small(), tmp_path) / "structure.json"
    rewrite_structure(tmp_path, lambda c: c["tensors"]["2.bias"].update(dtype="int32"))
    assert refusal(tmp_path).startswith(
        f"Tensor '2.bias' is float32 [2] in {path.with_name('model.safetensors')}, and {path} "
        "expects int32 [2]. "
    )


def test_a_tensor_that_only_one_file_lists_is_named(tmp_path: Path) -> None:
    path = saved(small(), tmp_path) / "structure.json"
    rewrite_structure(tmp_path, lambda c: c["tensors"].pop("2.bias"))
    assert refusal(tmp_path).startswith(
        f"Tensor '2.bias' is in {path.with_name('model.safetensors')} but not in {path}. "
    )
