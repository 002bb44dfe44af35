"""Whether a stored edit fits the model that was built, asked before the edit touches it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from secateur.errors import StorageError
from secateur.storage._document import EditRecord, StubRecord
from secateur.storage._inventory import inventory
from secateur.storage._positions import expand_runs, read_runs
from secateur.structure import RELU, Stub, named_modules, read_slot
from secateur.surgery import Edit


def fitting_edit(record: EditRecord, model: nn.Module, path: Path) -> Edit:
    """Return the edit, every name and number of it checked against the model.

    An edit from a hostile file may only do what surgery does: keep positions that exist, replace
    modules that exist, and lower whole numbers that a module already stores.

    Args:
        record: The edit as it was read.
        model: The model as it was built.
        path: The file, for errors.

    Returns:
        The edit, ready for `secateur.surgery.replay_`.

    Raises:
        StorageError: If the edit names something that the model does not have, or asks for more.
    """
    modules = named_modules(model)
    _check_kept(record, model, path)
    for stub in record.stubs:
        _check_stub(stub, modules, path)
    for name, values in record.attributes.items():
        for attribute, value in values.items():
            _check_attribute(_module(modules, name, path), name, attribute, value, path)
    for name in record.attentions:
        if not isinstance(_module(modules, name, path), nn.MultiheadAttention):
            raise StorageError(_misfit(path, f"module {name!r} is no nn.MultiheadAttention"))
    return Edit(
        kept={
            name: {int(axis): expand_runs(read_runs(text)) for axis, text in axes.items()}
            for name, axes in record.kept.items()
        },
        stubs=tuple(
            Stub(module=stub.module, kind=stub.kind, children=stub.children, output=stub.output)
            for stub in record.stubs
        ),
        attributes=record.attributes,
        attentions=record.attentions,
    )


def _check_kept(record: EditRecord, model: nn.Module, path: Path) -> None:
    shapes = {name: held.tensor.shape for held in inventory(model) for name in held.names}
    for name, axes in record.kept.items():
        if name not in shapes:
            raise StorageError(_misfit(path, f"tensor {name!r} does not exist in it"))
        for axis, text in axes.items():
            shape, last = list(shapes[name]), read_runs(text)[-1][1]
            if int(axis) >= len(shape):
                raise StorageError(_misfit(path, f"tensor {name!r} {shape} has no axis {axis}"))
            if last >= shape[int(axis)]:
                raise StorageError(
                    _misfit(path, f"tensor {name!r} {shape} has no position {last} on axis {axis}")
                )


def _check_stub(stub: StubRecord, modules: dict[str, nn.Module], path: Path) -> None:
    module = _module(modules, stub.module, path)
    for child in stub.children:
        if child != RELU and module._modules.get(child) is None:
            raise StorageError(_misfit(path, f"module {stub.module!r} has no child {child!r}"))


def _check_attribute(
    module: nn.Module, name: str, attribute: str, value: int | tuple[int, ...], path: Path
) -> None:
    where = f"attribute {attribute!r} of module {name!r}"
    built = read_slot(module, attribute)
    if built is None:
        raise StorageError(
            _misfit(path, f"{where} is no whole number or tuple of them, so it cannot be set")
        )
    old = built if isinstance(built, tuple) else (built,)
    new = value if isinstance(value, tuple) else (value,)
    same_form = isinstance(built, tuple) is isinstance(value, tuple) and len(old) == len(new)
    if not same_form or any(after > before for before, after in zip(old, new, strict=True)):
        raise StorageError(
            _misfit(path, f"{where} is {built!r:.80} and cannot become {value!r:.80}")
        )


def _module(modules: dict[str, nn.Module], name: str, path: Path) -> nn.Module:
    if name not in modules:
        raise StorageError(_misfit(path, f"module {name!r} does not exist in it"))
    return modules[name]


def _misfit(path: Path, fact: str) -> str:
    return (
        f"The edit in {path} does not fit the model that build_model returned: {fact}. Pass a "
        "build_model that builds the same model, at full size, as the one that was trained."
    )
