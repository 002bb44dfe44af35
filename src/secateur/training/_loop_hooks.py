"""Puts gates around the user's forward, backward and update: what happens in which hook."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from secateur.gates import Compactors, DamageMeter, Gates
from secateur.methods import Ablating, Compacting, Search
from secateur.structure import tensors_in
from secateur.surgery import distributed_in, renew_reducer_
from secateur.training._batch_sizes import BatchSizes
from secateur.training._damage_gauge import all_reduced, look
from secateur.training._hooks import Hooks
from secateur.training._loss_program import Forward, LossProgram
from secateur.training._loss_tape import LossTape
from secateur.training._side_work import SideWork
from secateur.training._surroundings import Autocast, Randomness
from secateur.training._window import Window

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class LoopHooks:
    """The hooks of one session, and what they share between two updates.

    Args:
        model: The model, without wrappers.
        wrapper: What the user calls; the model itself if nothing wraps it.
        optimizer: The optimizer of the training.
        gates: The model's gates.
        meter: Measures damage at consumers, for a search that asks for it.
        compactors: The model's compactors, for a search that trains them.
        search: Draws gates and takes in what is measured.
        after_update: Called after each update with whether the search has observed the step.
        on_failure: Called once, with the reason, if losses cannot be measured on the side.

    Attributes:
        gates: The model's gates; replaced after a removal.
        meter: Measures damage at consumers; replaced after a removal, too.
        can_measure: Whether the user's loss could be computed again so far.
        side_samples: Samples that went through the model, without gradients, to measure losses.
    """

    def __init__(  # noqa: PLR0913 (what a session shares with its hooks)
        self,
        model: nn.Module,
        wrapper: nn.Module,
        optimizer: Optimizer,
        gates: Gates,
        search: Search,
        *,
        meter: DamageMeter | None = None,
        compactors: Compactors | None = None,
        after_update: Callable[[bool], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self.gates = gates
        self.meter = meter
        self._compactors = compactors
        self.can_measure = True
        self.side_samples = 0
        self._work = SideWork()
        self._batch_sizes = BatchSizes()
        self._model = model
        self._optimizer = optimizer
        self._search = search
        # Asked once: whether a search has these methods takes microseconds to find out.
        self._ablating = search if isinstance(search, Ablating) else None
        self._compacting = search if isinstance(search, Compacting) else None
        self._after_update = after_update
        self._on_failure = on_failure
        self._device = next(model.parameters()).device
        self._tape = LossTape(self._device.type, self._measure, self._give_up)
        self._window: Window | None = None
        self._muted = False
        self._in_update = False
        self._in_closure = False
        self._reclose = False
        self._observed = False
        self._skipped = False
        self._warned = False
        self._distributed = distributed_in(wrapper)
        self._hooks = Hooks()
        self._register(wrapper)

    def _register(self, wrapper: nn.Module) -> None:
        model, optimizer, add = self._model, self._optimizer, self._hooks.add
        add(model.register_forward_pre_hook, self._before_forward, with_kwargs=True)
        add(model.register_forward_hook, self._after_forward)
        # A wrapper may return copies of the model's output: the loss starts at those.
        add(wrapper.register_forward_hook, self._after_call)
        add(model.register_state_dict_post_hook, self._restore_in_state_dict)
        add(model.register_load_state_dict_pre_hook, self._before_loading)
        add(optimizer.register_step_pre_hook, self._before_update)
        add(optimizer.register_step_post_hook, self._after_optimizer_step)

    @property
    def side_macs(self) -> float:
        """Multiply-accumulates of all measurements of damage so far."""
        return self._work.macs

    def end(self) -> None:
        """Open the gates, and let every hook do nothing; they go as soon as they can."""
        self._tape.leave()
        self._mend()
        # They hold a copy of the weights, and whoever reads the report later holds the session.
        self._compactors = None
        self.gates.open_()
        self._window = None
        if self._in_update:
            # The optimizer is walking through its hooks and would not bear losing one.
            self._hooks.silence()
            self._hooks.remove_before_next(self._model)
        else:
            self._hooks.remove()

    @contextmanager
    def muted(self) -> Generator[None]:
        """Let the model be called without the hooks taking notice.

        Yields:
            Nothing.
        """
        before, self._muted = self._muted, True
        try:
            yield
        finally:
            self._muted = before

    def renew_reducers(self) -> None:
        """Let data parallel wrappers reduce gradients of the shapes that parameters have now."""
        for wrapper in self._distributed:
            renew_reducer_(wrapper)

    # The forward passes

    def _before_forward(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if self._muted:
            return
        self._mend()
        self._tape.pause()
        self._reclose = False
        if not (module.training and torch.is_grad_enabled()):
            # Whoever evaluates between forward and update sees the deterministic network, and the
            # backward pass that may still come the weights of its own forward.
            self._reclose = self.gates.closed
            self.gates.open_()
            if self._window is not None:
                self._window.forward = None
            return
        window = self._open_window()
        window.close_(self.gates)
        before = window.num_samples
        window.count(args, kwargs)
        self._look(window, args, kwargs, window.num_samples - before)
        if window.probe is not None and self.can_measure:
            window.forward = Forward(
                args,
                kwargs,
                Randomness.present(self._device),
                Autocast.present(self._device.type),
            )

    def _after_forward(self, module: nn.Module, args: object, output: object) -> None:
        if self._reclose and not self._muted:
            self._reclose = False
            self.gates.close_again_()

    def _after_call(self, module: nn.Module, args: object, output: object) -> None:
        if self._muted or self._window is None or self._window.forward is None:
            return
        forward, self._window.forward = self._window.forward, None
        forward.returned = tuple(tensors_in(output))
        self._tape.listen(forward)

    def _open_window(self) -> Window:
        """Return the window of the coming update, a new one after the last update."""
        if self._window is None:
            self._notice_wrapper()
            # The search decides on the probe while it draws: draw first.
            draw = self._search.draw()
            self._window = Window(draw, self._search.probe())
        elif all(parameter.grad is None for parameter in self.gates.parameters):
            # Gradients were cleared without an update, as after an overflow under GradScaler.
            self._window.restart()
        return self._window

    def _notice_wrapper(self) -> None:
        """Find out who calls a model that was attached without its data parallel wrapper."""
        caller = DistributedDataParallel._get_active_ddp_module()
        if caller is not None and caller not in self._distributed:
            self._distributed += distributed_in(caller)
            # A resumed session may have made the model smaller before.
            self.renew_reducers()

    # The update

    def _before_update(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Arguments | None:
        self._tape.leave()
        self._mend()
        self._in_update = True
        self._observed, self._skipped = False, False
        if len(args) > 1 and callable(args[1]):
            return (args[0], self._around_closure(args[1]), *args[2:]), kwargs
        if callable(kwargs.get("closure")):
            return args, {**kwargs, "closure": self._around_closure(kwargs["closure"])}
        self._prepare()
        return None

    def _around_closure(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Read the gates after the closure: forward and backward run inside it."""

        def read_after() -> Any:
            self._in_closure = True
            try:
                result = closure()
            finally:
                self._in_closure = False
            self._tape.leave()
            self._prepare()
            return result

        return read_after

    def _prepare(self) -> None:
        """Read what the gradients say, then let the optimizer see the kernels of compactors."""
        self._read()
        if self._compactors is not None and not self._skipped:
            scale = getattr(self._optimizer, "grad_scale", None)
            self._compactors.take_off_(1.0 if scale is None else scale)

    def _mend(self) -> None:
        """Fold the compactors in again if an update was interrupted halfway."""
        if self._compactors is not None and not self._in_closure:
            self._compactors.put_on_()

    def _read(self) -> None:
        """Open the gates, and let the search observe what the gradients say about them."""
        gates, window = self.gates, self._window
        if window is None or window.num_samples == 0:
            self._warn_once()
            return
        gates.open_()
        if _overflowed(self._optimizer):
            self._skipped = True
            return
        units_U, layers_L = gates.gradients()
        gates.zero_closed_gradients_()
        if self._observed:
            # Line searches evaluate their closure again within a step: same gates, one report.
            return
        scale = getattr(self._optimizer, "grad_scale", None)
        if scale is not None:
            units_U, layers_L = units_U / scale, layers_L / scale
        self._report_damage(window)
        rise = window.measured()
        if window.probe is not None and rise is not None:
            self._search.observe_probe(window.probe, rise)
        batch_size = self._batch_sizes.of_step(window.num_samples)
        self._search.observe(units_U, layers_L, window.draw, batch_size)
        self._observed = True
        window.probe = None

    def _after_optimizer_step(self, *_: object) -> None:
        if not self._skipped:
            if self._compactors is not None and self._compacting is not None:
                if self._observed:
                    self._compacting.train_compactors(self._compactors.rates(self._optimizer))
                self._compactors.put_on_()
            self.gates.open_()
            self._window = None
            self._after_update(self._observed)
        self._in_update = False

    def _warn_once(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                "The optimizer made a step without a training forward of the attached model: "
                "nothing was learned about its structure. Call the model itself, such as "
                "model(inputs), not one of its parts, in training mode and with gradients.",
                stacklevel=2,
            )

    # Damage measured at consumers

    def _look(
        self, window: Window, args: tuple[Any, ...], kwargs: dict[str, Any], num_samples: int
    ) -> None:
        """Measure what the search asks for, in a forward pass of its own before the user's."""
        if self.meter is None or self._ablating is None:
            return
        ablation = self._ablating.ablate()
        if ablation is not None:
            measure = partial(look, self.meter, ablation, self._model, args, kwargs, num_samples)
            with self.muted():
                damage = self._work.add(self.meter, ablation, num_samples, measure)
            window.damages.append((ablation, damage))

    def _report_damage(self, window: Window) -> None:
        damages, window.damages = window.damages, []
        if self._ablating is not None:
            for ablation, damage in damages:
                self._ablating.observe_damage(ablation, all_reduced(damage))

    # Losses measured on the side

    def _measure(self, program: LossProgram) -> None:
        window = self._window
        if window is None or window.probe is None or not self.can_measure:
            return
        with self.muted():
            self.side_samples += window.measure(program, self._model, self.gates)

    def _give_up(self, reason: str) -> None:
        if self.can_measure:
            self.can_measure = False
            self._on_failure(reason)

    # Saving and loading

    def _restore_in_state_dict(
        self, module: nn.Module, state: dict[str, Any], prefix: str, metadata: object
    ) -> None:
        if not self.gates.closed:
            return
        for name, weight in self.gates.restored().items():
            entry = state.get(prefix + name)
            if isinstance(entry, nn.Parameter):
                # keep_vars=True asked for the parameters themselves.
                self.gates.open_()
                return
            if isinstance(entry, Tensor):
                state[prefix + name] = weight

    def _before_loading(self, *_: object) -> None:
        self.gates.open_()


def _overflowed(optimizer: Optimizer) -> bool:
    """Say whether a fused optimizer will skip its update because a gradient is not finite."""
    # Under a GradScaler only fused optimizers are called then, and only they wait for the device.
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(found_inf)
