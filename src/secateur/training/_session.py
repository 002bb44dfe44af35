"""The search that is attached to a training: takes decisions after updates, and tells of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from secateur.errors import UsageError
from secateur.gates import Compactors, DamageMeter, Gates
from secateur.methods import Ablating, Compacting, Method, Search
from secateur.structure import Decision, Live, Structure
from secateur.surgery import cut_
from secateur.training._loop_hooks import LoopHooks
from secateur.training._session_events import (
    Event,
    cost_entries,
    remove_event,
    settle_event,
    start_event,
)
from secateur.training._session_report import SessionReport, make_report
from secateur.training._session_state import SavedSession, SessionState, read_saved

STEP_EVENTS = 100
"""Events of the kind ``step`` in a whole run, about."""

CALIBRATION_EVENTS = 10
"""Events of the kind ``calibration`` in a whole run, about."""


class Session:
    """A structure search at work; `secateur.attach` makes it.

    Between two updates of the optimizer it is safe to evaluate, to save and to copy the model:
    evaluation and ``state_dict`` see every weight restored.

    Args:
        model: The model, without wrappers.
        wrapper: What the user calls: the model, or its DistributedDataParallel or compiled form.
        optimizer: The optimizer of the training.
        structure: What the model is made of.
        method: The settings of the method.
        total_steps: Optimizer steps of the whole training.
        steps_per_epoch: Optimizer steps of an epoch, or None.
        seed: Seed of the gates.
        ema: Copies of the model that shrink along.
        on_event: Called with every event.

    Attributes:
        structure: What the model was made of when the session began.
        live: What is left of it.
        events: Every event since the session began or was resumed.
        step: Optimizer steps taken, counted until the network settled.
        total_steps: Optimizer steps of the whole training.
        search: The run of the method.
    """

    def __init__(  # noqa: PLR0913 (what attach takes, less what it resolves)
        self,
        model: nn.Module,
        wrapper: nn.Module,
        optimizer: Optimizer,
        structure: Structure,
        method: Method,
        *,
        total_steps: int,
        steps_per_epoch: int | None = None,
        seed: int = 0,
        ema: Sequence[nn.Module] = (),
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        self.structure = structure
        self.live: Live = structure.everything()
        self.events: list[Event] = []
        self.step = 0
        self.total_steps = total_steps
        self._model = model
        self._optimizer = optimizer
        self._ema = tuple(ema)
        self._on_event = on_event
        self._generator = torch.Generator().manual_seed(seed)
        self.search: Search = method.begin(
            structure,
            total_steps=total_steps,
            steps_per_epoch=steps_per_epoch,
            generator=self._generator,
            device=next(model.parameters()).device,
        )
        self._start = start_event(model, structure, method, seed=seed, total_steps=total_steps)
        self._started = False
        self._num_events = 0
        self._macs_share = 1.0
        self._spent_steps = 0.0
        self._began = time.perf_counter()
        self._loop = LoopHooks(
            model,
            wrapper,
            optimizer,
            Gates(model, structure, self.live),
            self.search,
            meter=self._meter(),
            compactors=self._compactors(),
            after_update=self._after_update,
            on_failure=self._cannot_measure,
        )

    @property
    def settled(self) -> bool:
        """Whether the network is final."""
        return self.search.settled

    @property
    def macs_share(self) -> float:
        """MACs of the model as it is now, as a share of the starting network's."""
        return self._macs_share

    @property
    def side_samples(self) -> int:
        """Samples that went through the model on the side, since the session began or resumed.

        Each is one forward pass without gradients, beside those of the training itself.
        """
        return self._loop.side_samples

    @property
    def side_macs(self) -> float:
        """Multiply-accumulates of measuring damage, since the session began or resumed.

        They come on top of those of `side_samples`.
        """
        return self._loop.side_macs

    @property
    def training_macs_share(self) -> float:
        """MACs spent on training so far, as a share of the starting network's for as many steps."""
        return self._spent_steps / self.step if self.step else 1.0

    def report(self) -> SessionReport:
        """Say what went, what stayed, and what it saved.

        Returns:
            A frozen record; printing it shows a table.
        """
        return make_report(
            self.structure,
            self.live,
            step=self.step,
            total_steps=self.total_steps,
            settled=self.settled,
            training_macs_share=self.training_macs_share,
        )

    def detach(self) -> None:
        """End the search: weights are restored, and every hook is taken away.

        What was removed stays removed. Inside an update, as from ``on_event``, the hooks fall
        silent and go before the next forward pass.
        """
        self._loop.end()

    def state_dict(self) -> SessionState:
        """Return what a resumed run needs beside the states of the model and the optimizer.

        Call it between an update and the next training forward pass.

        Returns:
            Tensors, numbers, and lists and dictionaries of these.
        """
        return SavedSession(
            step=self.step,
            seconds=self._seconds(),
            spent_steps=self._spent_steps,
            num_events=self._num_events,
            can_measure=self._loop.can_measure,
            live=self.live,
            generator=self._generator.get_state(),
            search=self.search.state_dict(),
        ).to_dict()

    def load_state_dict(self, state: SessionState) -> None:
        """Continue a run; on one CPU process it continues bit for bit.

        Build the full model, attach with the same settings, call this, and load the states of
        model and optimizer after it: this takes out of both what had been removed.

        Args:
            state: What `state_dict` returned.

        Raises:
            UsageError: The state belongs to another structure or version, or this session has
                already taken a step.
        """
        if self.step:
            raise UsageError(
                f"This session has already taken {self.step} steps; a state can only be loaded "
                "into a new one. Build the model again, attach, and load before training."
            )
        saved = read_saved(state, self.structure)
        self._cut(saved.gone(), proof=False)
        self.search.load_state_dict(saved.search)
        self._generator.set_state(saved.generator)
        self.step = saved.step
        self._spent_steps = saved.spent_steps
        self._num_events = saved.num_events
        self._loop.can_measure = saved.can_measure
        self._began = time.perf_counter() - saved.seconds
        if self.settled:
            self._loop.end()

    # After an update

    def _after_update(self, observed: bool) -> None:
        if not self._started:
            self._emit_start()
        self.step += 1
        self._spent_steps += self._macs_share
        if observed:
            self._carry_out(self.search.decide())
        if self.settled:
            self._emit(settle_event(self.structure, self.live))
            self._emit_calibration()
            self._loop.end()
        elif self._is_due(STEP_EVENTS):
            self._emit(self._step_event())
            if self._is_due(CALIBRATION_EVENTS):
                self._emit_calibration()

    def _carry_out(self, decision: Decision) -> None:
        if not decision:
            return
        if self.settled or self.search.should_cut(self.live, decision):
            worth = _call(self.search, "worth", decision)
            price = self.search.record().get("price")
            self._cut(decision, proof=True)
            self.search.removed(decision)
            event = remove_event(self.structure, self.live, decision, worth)
            self._emit({**event, "price": price})

    def _cut(self, decision: Decision, *, proof: bool) -> None:
        if not decision:
            return
        try:
            with self._loop.muted():
                self.live, _ = cut_(
                    self._model,
                    self.structure,
                    self.live,
                    decision,
                    optimizers=(self._optimizer,),
                    extra_models=self._ema,
                    proof=proof,
                )
        finally:
            self._loop.renew_reducers()
        self._loop.gates = Gates(self._model, self.structure, self.live)
        self._loop.meter = self._meter()
        macs = self.structure.cost.macs
        self._macs_share = macs.value(self.live.counts, self.live.layers) / macs.value()

    def _meter(self) -> DamageMeter | None:
        if not isinstance(self.search, Ablating):
            return None
        return DamageMeter(self._model, self.structure, self.live)

    def _compactors(self) -> Compactors | None:
        if not isinstance(self.search, Compacting):
            return None
        compactors = Compactors(self._model, self.structure)
        self.search.equip(compactors)
        return compactors

    # Events

    def _is_due(self, times: int) -> bool:
        return self.step % max(1, self.total_steps // times) == 0

    def _step_event(self) -> Event:
        rates = {group.get("lr") for group in self._optimizer.param_groups}
        rate = max((float(rate) for rate in rates if rate is not None), default=None)
        return {
            "event": "step",
            "lr": rate,
            "macs_share": self._macs_share,
            **cost_entries(self.structure, self.live),
            **self.search.record(),
        }

    def _emit_calibration(self) -> None:
        found = _call(self.search, "calibration")
        if found:
            self._emit({"event": "calibration", **found})

    def _cannot_measure(self, reason: str) -> None:
        message = (
            f"Losses are not measured on the side: {reason}. The search goes on with estimates "
            "alone. For measured losses compute the loss from what the model returns, in torch."
        )
        self._emit({"event": "notice", "message": message})

    def _emit_start(self) -> None:
        # Not before the first step: a resumed run learns only then at which step it begins.
        self._started = True
        self._emit(self._start)

    def _emit(self, event: Event) -> None:
        if not self._started:
            self._emit_start()
        kind = {"event": event["event"], "step": self.step, "seconds": self._seconds()}
        event = {**kind, **event}
        self._num_events += 1
        self.events.append(event)
        if self._on_event is not None:
            self._on_event(event)

    def _seconds(self) -> float:
        return time.perf_counter() - self._began


def _call(search: Search, name: str, *args: Any) -> Mapping[str, Any]:
    """Ask a search for figures that not every method has."""
    method = getattr(search, name, None)
    return {} if method is None else method(*args)
