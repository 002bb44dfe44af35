"""Hooks of a session on a model and an optimizer: copies of the model do not inherit them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch._compile import _disable_dynamo  # torch.compiler.disable would load the compiler now
from torch.utils.hooks import RemovableHandle


class Hook:
    """A callable that copying and pickling turn into one that does nothing.

    Averaged copies of a model are made by `copy.deepcopy`, which would otherwise copy the session,
    its optimizer and its statistics along, and have two sessions act.

    Args:
        target: What is called; None does nothing.
    """

    def __init__(self, target: Callable[..., Any] | None = None) -> None:
        self._target = target

    @property
    def alive(self) -> bool:
        """Whether a session is behind it."""
        return self._target is not None

    # A compiled model calls its hooks, too; what these do is nothing to compile.
    @_disable_dynamo
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return None if self._target is None else self._target(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Hook:
        return Hook()

    def __reduce__(self) -> tuple[type[Hook], tuple[()]]:
        return Hook, ()


class Hooks:
    """The hooks of one session, removed together."""

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self._hooks: list[Hook] = []

    def add(
        self,
        register: Callable[..., RemovableHandle],
        target: Callable[..., Any],
        **options: bool,
    ) -> None:
        """Register a hook.

        Args:
            register: A method such as ``module.register_forward_hook``.
            target: What the hook calls.
            options: Passed on to ``register``.
        """
        hook = Hook(target)
        self._hooks.append(hook)
        self._handles.append(register(hook, **options))

    def silence(self) -> None:
        """Make every hook do nothing, at once and from inside a hook, too."""
        for hook in self._hooks:
            hook._target = None

    def remove_before_next(self, model: nn.Module) -> None:
        """Take every hook away as soon as a model is called.

        Args:
            model: The model.
        """

        def sweep(*_: object) -> None:
            self.remove()
            handle.remove()

        handle = model.register_forward_pre_hook(sweep)

    def remove(self) -> None:
        """Take every hook away. An optimizer that is walking through its hooks would object."""
        self.silence()
        for handle in self._handles:
            handle.remove()
        self._handles, self._hooks = [], []


def is_attached(model: nn.Module) -> bool:
    """Say whether a session acts on a model.

    Args:
        model: Any module.

    Returns:
        Whether one of its forward hooks belongs to a session that is not detached.
    """
    hooks = model._forward_pre_hooks.values()
    return any(isinstance(hook, Hook) and hook.alive for hook in hooks)
