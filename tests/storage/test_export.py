from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from secateur.errors import StorageError, UsageError
from secateur.storage import _export as export_module
from secateur.storage import export
from tests.storage.saves import small_cut

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra secateur[export]")


class Convolutions(nn.Module):
    """Has layers that behave differently in training."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.head = nn.Linear(4, 2)
        self.body[1].running_mean.normal_()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Many(nn.Module):
    """Takes keyword arguments and returns a nest of tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(
        self, a: Tensor, *, double: bool = False, b: Tensor | None = None
    ) -> dict[str, Any]:
        y = self.linear(a) * (2 if double else 1)
        return {"x": y if b is None else y + self.linear(b), "y": (a.sum(1), a * 2)}


class OnlyTwo(nn.Module):
    """Works at one batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).reshape(2, 2)


def run_onnx(path: Path, **inputs: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    feed = {name: inputs[name].numpy() for name in names}
    return [torch.as_tensor(np.asarray(value)) for value in session.run(None, feed)]


@torch.no_grad()
def test_an_onnx_file_computes_what_the_model_does_at_any_batch_size(tmp_path: Path) -> None:
    model = Convolutions()
    path = export(model, torch.randn(1, 3, 8, 8), tmp_path / "net.onnx")
    assert path == tmp_path / "net.onnx"
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    x = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(run_onnx(path, x=x)[0], model.eval()(x), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_pt2_file_computes_what_the_model_does_at_any_batch_size(tmp_path: Path) -> None:
    model = Convolutions()
    path = export(model, torch.randn(1, 3, 8, 8), tmp_path / "sub" / "net.pt2", to="pt2")
    x = torch.randn(5, 3, 8, 8)
    found = torch.export.load(path).module()(x)
    torch.testing.assert_close(found, model.eval()(x), rtol=1e-6, atol=1e-6)


def test_a_cut_model_is_exported_at_its_size(tmp_path: Path) -> None:
    program = torch.export.load(export(small_cut(), torch.randn(2, 3), tmp_path / "a", to="pt2"))
    assert {name: list(value.shape) for name, value in program.state_dict.items()} == {
        "0.weight": [2, 3],
        "0.bias": [2],
        "2.weight": [2, 2],
        "2.bias": [2],
    }


@torch.no_grad()
def test_keyword_arguments_and_nested_outputs_are_exported(tmp_path: Path) -> None:
    model, a, b = Many(), torch.randn(4, 3), torch.randn(4, 3)
    path = export(model, {"a": a, "b": b, "double": True}, tmp_path / "many.onnx")
    expected = model(a, b=b, double=True)
    found = run_onnx(path, a=a, b=b)
    torch.testing.assert_close(found, [expected["x"], *expected["y"]])


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_a_model_of_one_batch_size_is_exported_at_that(
    to: export_module.Target, tmp_path: Path
) -> None:
    path = export(OnlyTwo(), torch.randn(2, 3), tmp_path / "two", to=to)
    if to == "onnx":
        shape = onnxruntime.InferenceSession(str(path)).get_inputs()[0].shape
        assert shape == [2, 3]


def test_the_model_stays_as_it_is(tmp_path: Path) -> None:
    model = Convolutions().train()
    model.body[1].eval()
    before = [module.training for module in model.modules()]
    export(model, torch.randn(2, 3, 8, 8), tmp_path / "net.pt2", to="pt2")
    assert [module.training for module in model.modules()] == before
    assert model.body[1].num_batches_tracked == 0


def test_a_trace_that_fails_leaves_no_hooks_in_the_process(tmp_path: Path) -> None:
    hooks = dict(nn.modules.module._global_buffer_registration_hooks)
    with pytest.raises(UsageError, match=r"^torch\.export cannot trace Convolutions on the"):
        export(Convolutions(), torch.randn(2, 5), tmp_path / "net.pt2", to="pt2")
    assert dict(nn.modules.module._global_buffer_registration_hooks) == hooks


def test_a_model_that_cannot_be_copied_is_named(tmp_path: Path) -> None:
    model = small_cut()
    model.lock = threading.Lock()
    with pytest.raises(UsageError) as caught:
        export(model, torch.ones(2, 3), tmp_path / "net.pt2", to="pt2")
    assert str(caught.value) == (
        "Sequential cannot be copied, and exporting works on a copy: TypeError: cannot pickle "
        "'_thread.lock' object. Take away the attribute that cannot be copied."
    )


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_a_file_that_computes_something_else_is_not_kept(
    to: export_module.Target, tmp_path: Path
) -> None:
    class Forgetful(nn.Module):
        """Depends on what no file can hold: how often it ran."""

        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return x * (1 + 0.01 * self.calls)

    path = tmp_path / "net"
    path.write_text("the old export")
    with pytest.raises(StorageError) as caught:
        export(Forgetful(), torch.randn(2, 3), path, to=to)
    assert str(caught.value).startswith(
        "The export computes something else than the model: a difference of "
    )
    assert str(caught.value).endswith(
        f" of the largest output. {path} was not written; please report the model, or try the "
        "other target."
    )
    assert path.read_text() == "the old export"
    assert list(tmp_path.iterdir()) == [path]


def test_an_untraceable_model_is_named(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UsageError) as caught:
        export(Branches(), torch.ones(2, 3), tmp_path / "net.pt2", to="pt2")
    assert str(caught.value).startswith(
        "torch.export cannot trace Branches on the example inputs: "
    )
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError) as caught:
        export(small_cut(), torch.ones(2, 3), tmp_path / "net.onnx")
    assert str(caught.value) == (
        'to="onnx" needs onnxscript, which is not installed. '
        "Run: pip install '.[export]' in a clone of secateur."
    )


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        export(small_cut(), torch.ones(2, 3), tmp_path / "net", to="tflite")  # type: ignore[arg-type]
    assert str(caught.value) == "to is 'tflite', expected one of 'onnx', 'pt2'."
    with pytest.raises(UsageError) as caught:
        export(small_cut(), [torch.ones(2, 3)], tmp_path / "net")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "example_inputs is a list, expected a tensor, a tuple of positional or a dict of keyword "
        "arguments of the model's forward."
    )


def test_importing_storage_loads_no_optional_package() -> None:
    source = Path(export_module.__file__).read_text()
    assert "\nimport onnx" not in source
