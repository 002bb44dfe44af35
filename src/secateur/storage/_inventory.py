"""Which tensors and states a model holds, ties counted once."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from secateur.errors import UsageError
from secateur.storage._dtypes import BY_TORCH
from secateur.storage._json import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Held:
    """A tensor of a model.

    Attributes:
        names: Every qualified name, the one under which the model lists it first in front.
        tensor: The parameter or buffer itself.
        is_parameter: False for buffers.
        persistent: False for buffers that `state_dict` leaves out.
    """

    names: tuple[str, ...]
    tensor: Tensor
    is_parameter: bool
    persistent: bool


def inventory(model: nn.Module) -> tuple[Held, ...]:
    """List every parameter and buffer, non-persistent ones included.

    Args:
        model: The model.

    Returns:
        One entry a tensor, in the model's own order, parameters first.
    """
    names: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    buffers = dict(model.named_buffers(remove_duplicate=False))
    for name, tensor in (*parameters.items(), *buffers.items()):
        names.setdefault(id(tensor), []).append(name)
        tensors[id(tensor)] = tensor
    hidden = _non_persistent(model)
    return tuple(
        Held(
            names=tuple(aliases),
            tensor=tensors[key],
            is_parameter=aliases[0] in parameters,
            persistent=not hidden.issuperset(aliases),
        )
        for key, aliases in names.items()
    )


def true_values(model: nn.Module) -> dict[str, Tensor]:
    """Return the values that a model has with all gates open.

    A running search holds the weights of hidden structures at zero between a forward and the
    update. What `state_dict` returns is as if it did not, and the training goes on undisturbed.

    Args:
        model: The model.

    Returns:
        The first name of every tensor to its values.
    """
    state = model.state_dict()
    values = {}
    for held in inventory(model):
        tensor, entry = held.tensor, state.get(held.names[0])
        if isinstance(entry, Tensor) and _alike(entry, tensor):
            tensor = entry
        values[held.names[0]] = tensor
    return values


def _alike(first: Tensor, second: Tensor) -> bool:
    if nn.parameter.is_lazy(first) or nn.parameter.is_lazy(second):
        return False
    return first.shape == second.shape and first.dtype == second.dtype


def storable(held: Held, values: Tensor) -> Tensor:
    """Return the values of a tensor as they go into the file.

    Args:
        held: The tensor.
        values: Its values with all gates open.

    Returns:
        A detached contiguous tensor on the CPU.

    Raises:
        UsageError: If the file format cannot hold the tensor.
    """
    tensor, name = held.tensor, held.names[0]
    if nn.parameter.is_lazy(tensor):
        raise UsageError(_unfit(name, "has no shape yet", "run the model once"))
    if tensor.is_meta:
        raise UsageError(_unfit(name, "is on the meta device and has no values", "materialise it"))
    if not isinstance(tensor, nn.Parameter) and type(tensor) not in (Tensor, nn.Buffer):
        raise UsageError(
            _unfit(name, f"is a {type(tensor).__name__}", "turn it into a plain tensor")
        )
    if tensor.layout != torch.strided or tensor.dtype not in BY_TORCH:
        raise UsageError(
            _unfit(
                name,
                f"has layout {tensor.layout} and dtype {tensor.dtype}",
                "convert it; dense tensors of these dtypes can be stored: "
                + ", ".join(str(dtype) for dtype in BY_TORCH),
            )
        )
    return values.detach().resolve_conj().resolve_neg().cpu().contiguous()


def extra_states(model: nn.Module) -> JsonObject:
    """Collect what modules return from `get_extra_state`.

    Args:
        model: The model.

    Returns:
        Module path to a value that JSON gives back unchanged.

    Raises:
        UsageError: If a module's extra state is not made of JSON's types.
    """
    states: JsonObject = {}
    for path, module in model.named_modules():
        if type(module).get_extra_state is nn.Module.get_extra_state:
            continue
        state = module.get_extra_state()
        if not _survives_json(state):
            raise UsageError(
                f"The extra state of module {path!r} ({type(module).__name__}) is a "
                f"{type(state).__name__} that JSON does not give back unchanged. Files of secateur "
                "hold no pickles: let get_extra_state return dicts with text keys, lists, text, "
                "numbers, booleans or None, and put tensors into buffers."
            )
        states[path] = state
    return states


def _survives_json(state: object) -> bool:
    try:
        back = json.loads(json.dumps(state, allow_nan=False))
    except (TypeError, ValueError, RecursionError):
        return False
    return _same(state, back)


def _same(first: object, second: object) -> bool:
    if type(first) is not type(second):
        return False
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_same(first[k], second[k]) for k in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_same, first, second))
    return first == second


def _non_persistent(model: nn.Module) -> frozenset[str]:
    return frozenset(
        f"{path}.{name}" if path else name
        for path, module in model.named_modules(remove_duplicate=False)
        for name in module._non_persistent_buffers_set
    )


def _unfit(name: str, fact: str, remedy: str) -> str:
    return f"Tensor {name!r} {fact}, so it cannot be saved. Before secateur.save(): {remedy}."
