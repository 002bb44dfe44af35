"""What users put around a model: data parallelism and `torch.compile`, which call it unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from secateur.errors import UsageError
from secateur.surgery._cut import EDIT_ATTRIBUTE


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside `torch.compile` and data parallel wrappers.

    Args:
        model: A model, wrapped or not.

    Returns:
        The innermost module, or the wrapper that carries the record of the surgery.
    """
    *_, innermost = _layers(model)
    return innermost


def distributed_in(model: nn.Module) -> tuple[DistributedDataParallel, ...]:
    """Find DistributedDataParallel among the wrappers of a model.

    Args:
        model: A model, wrapped or not.

    Returns:
        Those that can follow a removal, outermost first.

    Raises:
        UsageError: One of them keeps copies of parameters or gradients that cannot follow.
    """
    found = tuple(layer for layer in _layers(model) if isinstance(layer, DistributedDataParallel))
    for wrapper in found:
        _check(wrapper)
    return found


def renew_reducer_(wrapper: DistributedDataParallel) -> None:
    """Let a wrapper average gradients of the shapes that parameters have now.

    Its reducer holds buffers of the old shapes and waits for parameters that are gone, or that
    autograd has forgotten it watches. The wrapper is asked to do what it does when it arrives in
    another process by pickle, and keeps its process group, hooks and settings. Nothing is sent.

    Args:
        wrapper: Around a model that has just been made smaller. On all processes the same.
    """
    state: dict[str, Any] = dict(vars(wrapper))
    hooks = state.pop("_comm_hooks", [])
    # A static graph is learned in the first backward pass, which is still to come.
    state |= {"_comm_hooks": [], "_static_graph_delay_allreduce_enqueued": False}
    wrapper._remove_autograd_hooks()
    del state["reducer"], state["logger"]
    wrapper.__setstate__(state)
    for hook, hook_state in hooks:
        wrapper.register_comm_hook(hook_state, hook)


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """Go through wrappers from the outside to the model itself."""
    yield model
    while EDIT_ATTRIBUTE not in vars(model):
        if isinstance(model, DataParallel | DistributedDataParallel):
            inner = model.module
        else:
            inner = model._modules.get("_orig_mod")
        if not isinstance(inner, nn.Module):
            return
        model = inner
        yield model


def _check(wrapper: DistributedDataParallel) -> None:
    keeping = {
        "mixed_precision": getattr(wrapper, "mixed_precision", None),
        "delay_all_reduce_named_params": getattr(wrapper, "_delay_all_reduce_params", None),
    }
    for name, value in keeping.items():
        if value:
            raise UsageError(
                f"The model is in DistributedDataParallel(..., {name}=...), which keeps tensors of "
                "the parameters' shapes where a removal cannot follow. Leave it out; for lower "
                "precision use torch.autocast."
            )
