"""Carrying a plan out on one model, every change with its way back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from secateur.errors import SurgeryError, UsageError
from secateur.nn import Shortcut, SlimMultiheadAttention, Zero
from secateur.structure import (
    OF_EVERY_MODULE,
    RELU,
    AttributeValue,
    Stub,
    holder_of,
    named_modules,
    named_tensors,
    write_slot,
)
from secateur.surgery._journal import Journal
from secateur.surgery._names import owner_of
from secateur.surgery._plan import Plan
from secateur.surgery._shrink import shrink_


def operate_(model: nn.Module, plan: Plan, journal: Journal) -> None:
    """Change a model as planned.

    Args:
        model: The model, or a copy of the one the plan was made for.
        plan: What to do.
        journal: Where the way back is noted.

    Raises:
        SurgeryError: The model does not have what the plan speaks of.
    """
    tensors = named_tensors(model)
    modules = named_modules(model)
    for name, axes in plan.slices.items():
        shrink_(tensors[name], axes, journal)
    for path, values in plan.attributes.items():
        _set_attributes_(modules[path], values, journal)
    for path in plan.attentions:
        _slim_(modules[path], path, journal)
    for stub in plan.stubs:
        _replace_(model, stub, journal)
    for module in (named_modules(model) if plan.stubs else modules).values():
        _clear_caches_(module, journal)
        _leave_fused_kernel_(module, journal)


def _set_attributes_(
    module: nn.Module, values: Mapping[str, AttributeValue], journal: Journal
) -> None:
    for slot, value in values.items():
        holder = holder_of(slot)
        journal.note(partial(vars(module).__setitem__, holder, vars(module)[holder]))
        write_slot(vars(module), slot, value)


def _slim_(module: nn.Module, path: str, journal: Journal) -> None:
    assert isinstance(module, nn.MultiheadAttention)
    journal.note(partial(setattr, module, "__class__", type(module)))
    try:
        SlimMultiheadAttention.adopt_(module)
    except UsageError as error:
        raise SurgeryError(f"Module {path!r} stays as it is: {error}") from error


def _replace_(model: nn.Module, stub: Stub, journal: Journal) -> None:
    path, leaf = owner_of(stub.module)
    siblings = model.get_submodule(path)._modules
    old = siblings.get(leaf)
    if old is None:
        raise SurgeryError(
            f"Module {stub.module!r} cannot be replaced: the model has none of that name below it. "
            "Expected a module that is part of the model, not the model itself."
        )
    new = _stand_in(old, stub)
    new.training = old.training
    _leave_input_(new, journal)
    journal.note(partial(siblings.__setitem__, leaf, old))
    siblings[leaf] = new


def _stand_in(old: nn.Module, stub: Stub) -> nn.Module:
    if stub.kind == "zero":
        return Zero(stub.output)
    if stub.kind not in {"identity", "shortcut"}:
        raise SurgeryError(
            f"Module {stub.module!r} cannot become {stub.kind!r}: expected 'identity', 'zero' or "
            "'shortcut'. Use a structure.json that this version of secateur wrote."
        )
    children = {}
    for name in stub.children:
        child = nn.ReLU().train(old.training) if name == RELU else old._modules.get(name)
        if child is None:
            raise SurgeryError(
                f"Module {stub.module!r} cannot become a shortcut through its child {name!r}: it "
                "has none of that name. Pass the model the structure was traced from."
            )
        children[name] = child
    return Shortcut(children)


def _leave_input_(shortcut: nn.Module, journal: Journal) -> None:
    """Keep what is left of a block from overwriting the tensor that the block is given.

    A block may overwrite the sum it has just computed. What came in is not its own: others may
    read it, and its gradient may need it.
    """
    for module in shortcut.modules():
        if vars(module).get("inplace") is True:
            journal.note(partial(setattr, module, "inplace", True))
            module.inplace = False  # type: ignore[assignment]


def _leave_fused_kernel_(module: nn.Module, journal: Journal) -> None:
    """Keep PyTorch's encoders from handing modules that changed to a kernel that is for whole ones.

    In evaluation mode they read the weights of their parts, which stand-ins do not have, and turn
    padded batches into nested tensors, which only that kernel understands. A slim attention makes
    an encoder layer decide against the kernel.
    """
    if isinstance(module, nn.TransformerEncoder) and _changed(module):
        journal.note(partial(setattr, module, "use_nested_tensor", module.use_nested_tensor))
        module.use_nested_tensor = False
    attention = module.self_attn if isinstance(module, nn.TransformerEncoderLayer) else None
    if not isinstance(attention, nn.MultiheadAttention) or not _changed(module):
        return
    if SlimMultiheadAttention.can_adopt(attention):
        _slim_(attention, "self_attn", journal)


def _changed(module: nn.Module) -> bool:
    kinds = (Shortcut, SlimMultiheadAttention, Zero)
    return any(isinstance(inner, kinds) for inner in module.modules())


def _clear_caches_(module: nn.Module, journal: Journal) -> None:
    """Forget tensors that a forward stored for the next one, such as biases by input size."""
    for name, value in vars(module).items():
        if name in OF_EVERY_MODULE or type(value) is not dict or not value:
            continue
        if all(isinstance(entry, Tensor) for entry in value.values()):
            journal.note(partial(value.update, dict(value)))
            value.clear()
