"""The content of structure.json, as pydantic models that refuse everything unexpected."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
)
from torch import nn

from secateur.storage._dtypes import DTYPES
from secateur.storage._positions import count_positions, read_runs

KIND = "secateur structure"
VERSION = 1


def _check_path(path: str) -> str:
    parts = path.split(".")
    # nn.Module refuses names that it uses itself, so no honest path holds one.
    if not all(part and part.isprintable() and not hasattr(nn.Module, part) for part in parts):
        raise ValueError("a path is made of names of modules and tensors, joined by dots")
    return path


def _check_module(path: str) -> str:
    return path if path == "" else _check_path(path)


def _check_attribute(name: str) -> str:
    holder, dot, inner = name.partition(".")
    named = inner.isidentifier() and not inner.startswith("__")
    if not holder.isidentifier() or holder.startswith("__"):
        raise ValueError("an attribute is an identifier that does not start with '__'")
    if dot and not named and not (inner.isascii() and inner.isdecimal() and len(inner) < 7):
        raise ValueError("after its dot an attribute has the name of a field or a position")
    return name


def _check_value(value: object) -> object:
    parts = value if isinstance(value, list) else [value]
    if not parts or not all(type(part) is int and 1 <= part <= 2**40 for part in parts):
        raise ValueError("an attribute is set to a whole number above 0 or a list of them")
    return tuple(value) if isinstance(value, list) else value


def _check_dtype(name: str) -> str:
    if name not in DTYPES:
        raise ValueError(f"a dtype is one of {', '.join(DTYPES)}")
    return name


def _check_runs(text: str) -> str:
    read_runs(text)
    return text


_Size = Annotated[int, Field(ge=0, le=2**40)]
_Value = Annotated[int | tuple[int, ...], BeforeValidator(_check_value)]
_Path = Annotated[str, StringConstraints(max_length=2048), AfterValidator(_check_path)]
_Module = Annotated[str, StringConstraints(max_length=2048), AfterValidator(_check_module)]
_Name = Annotated[str, StringConstraints(max_length=256), AfterValidator(_check_attribute)]
_Child = Annotated[str, StringConstraints(max_length=256, pattern=r"^[^.]+$")]
_Axis = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]?)$")]
_Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class StubRecord(_Strict):
    """A replaced module; see `secateur.structure.Stub`."""

    module: _Path
    kind: Literal["identity", "zero", "shortcut"]
    children: tuple[_Child, ...] = ()
    output: tuple[_Size, _Size] | None = None

    @model_validator(mode="after")
    def _output_is_inside(self) -> StubRecord:
        if self.output is not None and not self.output[0] < self.output[1] <= 64:
            raise ValueError("output is (position, length) with position < length <= 64")
        return self


class EditRecord(_Strict):
    """What separates the model from the one that is built; see `secateur.surgery.Edit`."""

    kept: dict[_Path, dict[_Axis, Annotated[str, AfterValidator(_check_runs)]]]
    stubs: tuple[StubRecord, ...]
    attributes: dict[_Module, dict[_Name, _Value]]
    attentions: tuple[_Module, ...]


class TensorRecord(_Strict):
    """A tensor of model.safetensors; aliases are the other names of a tied one."""

    shape: tuple[_Size, ...]
    dtype: Annotated[str, AfterValidator(_check_dtype)]
    is_parameter: bool
    persistent: bool
    aliases: tuple[_Path, ...]


class Document(_Strict):
    """The whole of structure.json but its checksum."""

    kind: Literal["secateur structure"]
    version: Literal[1]
    secateur: Annotated[str, StringConstraints(max_length=128)]
    torch: Annotated[str, StringConstraints(max_length=128)]
    sha256: _Digest
    edit: EditRecord
    tensors: dict[_Path, TensorRecord]
    extra_state: dict[_Module, JsonValue]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Document:
        seen: set[str] = set()
        for name, tensor in self.tensors.items():
            for alias in (name, *tensor.aliases):
                if alias in seen:
                    raise ValueError(f"tensor {alias!r} is listed twice")
                seen.add(alias)
        return self

    @model_validator(mode="after")
    def _kept_matches_shapes(self) -> Document:
        shapes = {
            alias: tensor.shape
            for name, tensor in self.tensors.items()
            for alias in (name, *tensor.aliases)
        }
        for name, axes in self.edit.kept.items():
            if name not in shapes:
                raise ValueError(f"tensor {name!r} was cut, and is not listed")
            for axis, text in axes.items():
                shape, num_kept = shapes[name], count_positions(read_runs(text))
                if int(axis) >= len(shape) or shape[int(axis)] != num_kept:
                    raise ValueError(
                        f"tensor {name!r} {list(shape)} cannot have kept {num_kept} positions of "
                        f"axis {axis}"
                    )
        return self
