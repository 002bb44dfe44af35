"""Structure discovery within a run, attached as its config says."""

from __future__ import annotations

from collections.abc import Callable

from secateur.methods import AOFP, ComplexityAware, Method, ResRep
from secateur.training import Session, attach
from secateur.training.trainer._config import AnySearchConfig, AOFPConfig, Config, ResRepConfig
from secateur.training.trainer._parts import Parts


def begin_search(
    config: Config,
    parts: Parts,
    *,
    total_steps: int,
    on_event: Callable[[dict[str, object]], None],
) -> Session | None:
    """Attach structure discovery where the config asks for it.

    Args:
        config: Settings of the run.
        parts: Its network and optimizer.
        total_steps: Optimizer steps of the run.
        on_event: Called with every decision.

    Returns:
        The search; None for a run without one.

    Raises:
        UsageError: A setting does not fit the network.
        NothingRemovableError: The network has nothing that could be removed.
    """
    if config.search is None:
        return None
    return attach(
        parts.model,
        parts.optimizer,
        parts.image,
        method=build_method(config.search),
        total_steps=total_steps,
        steps_per_epoch=len(parts.train),
        seed=config.training.seed,
        on_event=on_event,
    )


def build_method(settings: AnySearchConfig) -> Method:
    """Make the method that a config describes; what it leaves out is as the method has it.

    Args:
        settings: The section ``[search]``.

    Returns:
        The method.

    Raises:
        UsageError: Settings do not go together.
    """
    options = settings.model_dump(exclude_none=True, exclude={"method"})
    if isinstance(settings, AOFPConfig):
        return AOFP(**options)
    if isinstance(settings, ResRepConfig):
        return ResRep(**options)
    if settings.reference is not None:
        options["reference"] = tuple(settings.reference)
    return ComplexityAware(**options)
