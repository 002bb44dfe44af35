"""Building the model that a save is poured into, without memory for the sizes it starts from."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from secateur.errors import UsageError

BuildModel = Callable[[], nn.Module]


def build_on_meta(build_model: BuildModel) -> nn.Module | None:
    """Build a model whose tensors have shapes but no values.

    Args:
        build_model: The user's function.

    Returns:
        The model, or None where its constructor needs values.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = build_model()
    except (RuntimeError, TypeError, ValueError):
        return None  # what asking a meta tensor for values raises; a real mistake shows on the CPU
    return _checked(model)


def build_with_values(build_model: BuildModel) -> nn.Module:
    """Build a model as the user's script does, leaving the random state as it was.

    Args:
        build_model: The user's function.

    Returns:
        The model.

    Raises:
        UsageError: If it does not return a model.
    """
    with torch.random.fork_rng(devices=[]):
        return _checked(build_model())


def check_builder(build_model: BuildModel) -> None:
    """Refuse a model where a function that builds one is needed.

    Args:
        build_model: What the user passed.

    Raises:
        UsageError: If it is a module, or cannot be called.
    """
    if isinstance(build_model, nn.Module) or not callable(build_model):
        raise UsageError(
            f"build_model is a {type(build_model).__name__}, expected a function without "
            "arguments that builds the model at full size. Write: secateur.load(lambda: "
            "MyModel(...), folder)."
        )


def find_meta(model: nn.Module) -> str | None:
    """Find a tensor without values anywhere in a model.

    Args:
        model: The model.

    Returns:
        Where the first one is, or None. Containers, partials, closures and plain objects that
        modules refer to are searched too.
    """
    visited: set[int] = set()
    waiting: list[tuple[str, object]] = [(type(model).__name__, model)]
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, Tensor):
            if value.is_meta:
                return where
            continue
        if id(value) not in visited:
            visited.add(id(value))
            waiting.extend((f"{where}.{name}", part) for name, part in _parts(value))
    return None


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, type | types.ModuleType | str | bytes | int | float):
        return
    if isinstance(value, dict):
        yield from ((str(key), part) for key, part in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((str(number), part) for number, part in enumerate(value))
    elif isinstance(value, partial):
        yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
    elif isinstance(value, types.MethodType):
        yield "__self__", value.__self__
    elif isinstance(value, types.FunctionType):
        yield "__defaults__", value.__defaults__
        yield "__kwdefaults__", value.__kwdefaults__
        for cell in value.__closure__ or ():
            yield "__closure__", _content(cell)
    else:
        yield from _attributes(value)


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:
        return None  # not filled yet


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    yield from getattr(value, "__dict__", {}).items()
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            yield slot, getattr(value, slot, None)


def _checked(model: object) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise UsageError(
            f"build_model returned a {type(model).__name__}, expected a torch.nn.Module. "
            "Let it return the model at full size."
        )
    return model
