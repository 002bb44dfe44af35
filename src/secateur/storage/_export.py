"""Exporting a model for other runtimes, each file checked against the model before it is kept."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from secateur.errors import StorageError, UsageError
from secateur.storage._inputs import ExampleInputs, Inputs
from secateur.storage._inventory import inventory, true_values
from secateur.surgery import unwrapped

Target = Literal["onnx", "pt2"]
Run = Callable[[Inputs], list[Tensor]]

# Largest difference allowed, as a share of the output's largest magnitude. Another runtime adds in
# another order and fuses norms into convolutions: about a thousand roundings of the dtype.
_TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
# What tracing raises on models whose forward it cannot follow, from torch itself or the forward.
_UNTRACEABLE = (RuntimeError, TypeError, ValueError, AssertionError, LookupError, AttributeError)


def export(
    model: nn.Module,
    example_inputs: ExampleInputs,
    path: str | os.PathLike[str],
    *,
    to: Target = "onnx",
) -> Path:
    """Export a copy of a model in eval mode, with a free batch size where the model allows one.

    The file is run before it replaces anything: its outputs agree with the model's, at a second
    batch size too where that is free. (ONNX files are run where onnxruntime is installed.)

    Args:
        model: The model; it stays as it is.
        example_inputs: What the forward takes: a tensor, a tuple of positional or a dict of
            keyword arguments. The first axis of tensors counts as the batch.
        path: File to write. ONNX models over 2 GB get a second file with ``.data`` added.
        to: ``onnx``, or ``pt2`` for a `torch.export` archive.

    Returns:
        The path of the file.

    Raises:
        UsageError: If the target is unknown, its packages are missing, or the model's forward
            cannot be traced.
        StorageError: If the file computes something else than the model, or cannot be written.

    Example:
        >>> import tempfile
        >>> import torch
        >>> import secateur.storage
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     net = torch.nn.Linear(3, 2)
        ...     secateur.storage.export(net, torch.zeros(2, 3), f"{folder}/net.pt2", to="pt2").name
        'net.pt2'
    """
    writers = {"onnx": _write_onnx, "pt2": _write_pt2}
    if to not in writers:
        raise UsageError(f"to is {to!r}, expected one of {', '.join(map(repr, writers))}.")
    if to == "onnx":
        _require("onnx", "onnxscript")
    inputs = Inputs.of(example_inputs)
    target = Path(path)
    model = _copy(unwrapped(model)).eval()
    with torch.no_grad():
        with _quiet():
            program, batch_is_free = _trace(model, inputs)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".exporting-") as folder:
            file = Path(folder) / target.name
            with _quiet():
                run = writers[to](program, file)
            for batch in (inputs, *([inputs.repeated(3)] if batch_is_free else [])):
                _compare(model, batch, run, target)
            _move(Path(folder), target)
    return target


def _trace(model: nn.Module, inputs: Inputs) -> tuple[torch.export.ExportedProgram, bool]:
    """Return the program, and whether its batch size is free or only the example's."""
    several = inputs.repeated(3)
    with suppress(*_UNTRACEABLE):  # the second attempt says what is wrong, if it fails too
        program = _trace_free_batch(model, inputs)
        program.module()(*several.args, **several.kwargs)  # refuses where the size was fixed
        return program, True
    try:
        return torch.export.export(model, inputs.args, inputs.kwargs), False
    except _UNTRACEABLE as error:
        raise UsageError(
            f"torch.export cannot trace {type(model).__name__} on the example inputs: "
            f"{_first_line(error)}. Check that the model runs on them, and that its forward does "
            "not branch on values of tensors."
        ) from error


def _trace_free_batch(model: nn.Module, inputs: Inputs) -> torch.export.ExportedProgram:
    # torch.export takes a size of 1 for a constant, so the trace sees at least two samples.
    several = inputs.repeated(2) if inputs.batch_size == 1 else inputs

    def shape(leaf: object) -> tuple[object, ...] | None:
        if not isinstance(leaf, Tensor):
            return None
        sizes = [torch.export.Dim.STATIC] * leaf.ndim
        return (torch.export.Dim.AUTO, *sizes[1:]) if several.is_batched(leaf) else (*sizes,)

    bound = inspect.signature(model.forward).bind(*several.args, **several.kwargs)
    shapes = tree_map(shape, dict(bound.arguments))
    return torch.export.export(model, several.args, several.kwargs, dynamic_shapes=shapes)


def _first_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300].rstrip('.') if lines else 'no message'}"


def _write_pt2(program: torch.export.ExportedProgram, file: Path) -> Run:
    archive = file.with_name(f"{file.name}.pt2")  # torch.export.save insists on the ending
    torch.export.save(program, archive)
    loaded = torch.export.load(archive).module()
    archive.replace(file)
    return lambda inputs: _tensors(loaded(*inputs.args, **inputs.kwargs))


def _write_onnx(program: torch.export.ExportedProgram, file: Path) -> Run | None:
    try:
        result = torch.onnx.export(program, dynamo=True, verbose=False)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"torch.onnx cannot convert the model: {_first_line(error)}. "
            'Export it to="pt2" instead, or replace the operation that is named.'
        ) from error
    assert result is not None
    result.save(file)
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; what it warns of are its own guesses of shapes
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    wanted = {entry.name for entry in session.get_inputs()}
    names = [str(name) for name in program.graph_signature.user_inputs]

    def run(inputs: Inputs) -> list[Tensor]:
        feed = {
            name: leaf.detach().cpu().numpy()
            for name, leaf in zip(names, inputs.leaves, strict=True)
            if name in wanted
        }
        return [torch.as_tensor(value) for value in session.run(None, feed)]

    return run


def _compare(model: nn.Module, inputs: Inputs, run: Run | None, target: Path) -> None:
    if run is None:
        return
    expected, found = _tensors(model(*inputs.args, **inputs.kwargs)), run(inputs)
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in found]:
        raise StorageError(
            _disagreement(
                target,
                f"shapes {[list(tensor.shape) for tensor in found]}, expected "
                f"{[list(tensor.shape) for tensor in expected]}",
            )
        )
    for want, have in zip(expected, found, strict=True):
        share = _difference_share(want, have)
        if share > _TOLERANCE.get(want.dtype, 0.0):
            raise StorageError(
                _disagreement(target, f"a difference of {share:.1e} of the largest output")
            )


def _difference_share(want: Tensor, have: Tensor) -> float:
    if want.numel() == 0:
        return 0.0
    want, have = want.detach().cpu().double(), have.detach().cpu().double()
    same = (want == have) | (want.isnan() & have.isnan())
    difference = torch.where(same, 0.0, (want - have).abs()).nan_to_num(nan=math.inf).max()
    largest = want.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs().max().clamp_min(1e-30)
    return float(difference / largest)


def _disagreement(target: Path, fact: str) -> str:
    return (
        f"The export computes something else than the model: {fact}. {target} was not written; "
        "please report the model, or try the other target."
    )


def _move(folder: Path, target: Path) -> None:
    """Put the checked files in place, the one that refers to the other last."""
    data, old_data = folder / f"{target.name}.data", target.with_name(f"{target.name}.data")
    if data.exists():
        data.replace(old_data)
    (folder / target.name).replace(target)


def _tensors(output: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def _require(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f'to="onnx" needs {" and ".join(missing)}, which {_are(missing)} not installed. '
            "Run: pip install '.[export]' in a clone of secateur."
        )


def _are(things: Sequence[str]) -> str:
    return "is" if len(things) == 1 else "are"


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Keep to itself what torch warns of about its own exporters, and take away their traces.

    A trace that fails leaves hooks behind that would run at every buffer any module registers.
    """
    hooks = nn.modules.module._global_buffer_registration_hooks
    before = set(hooks)
    folding = logging.getLogger("onnxscript")
    level = folding.level
    folding.setLevel(logging.ERROR)  # it warns of every constant that it cannot work out itself
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        folding.setLevel(level)
        for key in hooks.keys() - before:
            del hooks[key]


def _copy(model: nn.Module) -> nn.Module:
    """Copy a model with all gates open; hooks of a running search do not act in copies."""
    try:
        twin = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise UsageError(
            f"{type(model).__name__} cannot be copied, and exporting works on a copy: "
            f"{_first_line(error)}. Take away the attribute that cannot be copied."
        ) from error
    values = true_values(model)
    for held in inventory(twin):
        held.tensor.data = values[held.names[0]].detach().clone()
    return twin
